"""Images without a label: sent in every form beside the labelled ones, stored after them, corrected and limited."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.http.limits import BytesInFlight
from app.images.files import ImageFile, LabelledFile, SentFiles
from app.store.clients import SyncStore
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import load
from tests.app.conftest import Limited
from tests.app.playing import SPEC, Worker, b64, png
from tests.app.test_choice import COLOUR, PHOTOS, card, photo

LABELLED = [("beta", png(1)), ("alpha", png(0)), ("beta", png(2))]
# Of the same kinds as the labelled ones, but none of their files.
WITHOUT = [png(3, 1), png(0, 2), png(1, 3)]


def as_json() -> dict[str, Any]:
    items = [{"label": label, "image": b64(data)} for label, data in LABELLED]
    return {"json": {"support": items, "unlabelled": [b64(data) for data in WITHOUT]}}


def as_form() -> dict[str, Any]:
    # Between the others: the order of fields does not matter, only that within a field.
    images = [("images", ("x.png", data)) for _, data in LABELLED]
    without = [("unlabelled", ("y.png", data)) for data in WITHOUT]
    files = [without[0], images[0], images[1], without[1], images[2], without[2]]
    return {"files": files, "data": {"labels": [label for label, _ in LABELLED]}}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def as_zip() -> dict[str, Any]:
    first = {f"task/_unlabelled/{number}.png": data for number, data in enumerate(WITHOUT[:2])}
    files = first | {f"task/{label}/{number}.png": data for number, (label, data) in enumerate(LABELLED)}
    return {"files": {"archive": ("a.zip", zipped(files | {"task/_unlabelled/more/2.png": WITHOUT[2]}))}}


def as_zip_and_files() -> dict[str, Any]:
    files = {f"{label}/{number}.png": data for number, (label, data) in enumerate(LABELLED)}
    archive = zipped({"_unlabelled/0.png": WITHOUT[0]} | files)
    return {"files": [("unlabelled", ("y.png", data)) for data in WITHOUT[1:]] + [("archive", ("a.zip", archive))]}


FORMS = [as_json, as_form, as_zip, as_zip_and_files]
Form = Callable[[], dict[str, Any]]


def create(client: TestClient, **request: Any) -> dict[str, Any]:
    answer = client.post("/episodes", **(request or as_json()))
    assert answer.status_code == 202, answer.text
    episode: dict[str, Any] = answer.json()
    return episode


@pytest.fixture
def parent(client: TestClient, worker: Worker) -> str:
    id = str(create(client)["id"])
    worker.adapt(id)
    return id


def stored(store: SyncStore, worker: Worker, id: str) -> tuple[np.ndarray, list[int]]:
    images, labels = store.claims.support(worker.claim(id))
    return images, labels.tolist()


def read(*files: bytes) -> list[np.ndarray]:
    return [load(data, SPEC, max_pixels=1000) for data in files]


@pytest.mark.parametrize("form", FORMS)
def test_each_form_stores_them_after_the_labelled_ones_and_in_their_order(
    form: Form, client: TestClient, worker: Worker, sync_store: SyncStore
) -> None:
    episode = create(client, **form())
    assert (episode["unlabelled"], episode["shots"]) == (3, {"beta": 2, "alpha": 1})
    assert episode["classes"] == ["beta", "alpha"]
    assert episode["warnings"] == []
    images, labels = stored(sync_store, worker, episode["id"])
    assert labels == [0, 1, 0, -1, -1, -1]
    np.testing.assert_array_equal(images, read(*(data for _, data in LABELLED), *WITHOUT))
    assert client.get(f"/episodes/{episode['id']}").json()["unlabelled"] == 3


def test_an_episode_without_any_says_so(client: TestClient) -> None:
    assert create(client, json={"support": as_json()["json"]["support"]})["unlabelled"] == 0


def test_they_are_returned_with_no_label(client: TestClient, parent: str) -> None:
    images = client.get(f"/episodes/{parent}/support").json()["images"]
    assert [image["label"] for image in images] == ["beta", "alpha", "beta", None, None, None]
    labelled = [image for image in images if image["label"] is not None]
    without = [image["image"] for image in images if image["label"] is None]
    # If they are sent again, they are stored unchanged.
    again = create(client, json={"support": labelled, "unlabelled": without})["id"]
    assert client.get(f"/episodes/{again}/support").json()["images"] == images


def change_as_json() -> dict[str, Any]:
    new = [{"label": "gamma", "image": b64(png(3, 9))}]
    changes = {
        "remove": [2, 3],
        "relabel": [{"image": 4, "label": "gamma"}],
        "add": new,
        "unlabelled": [b64(png(2, 8))],
    }
    return {"json": changes}


def change_as_form() -> dict[str, Any]:
    files = [("unlabelled", ("y.png", png(2, 8))), ("images", ("x.png", png(3, 9)))]
    return {"data": {"remove": ["2", "3"], "relabel": "4=gamma", "labels": "gamma"}, "files": files}


def change_as_zip() -> dict[str, Any]:
    archive = zipped({"_unlabelled/1.png": png(2, 8), "gamma/1.png": png(3, 9)})
    return {"data": {"remove": ["2", "3"], "relabel": "4=gamma"}, "files": {"archive": ("a.zip", archive)}}


@pytest.mark.parametrize("form", [change_as_json, change_as_form, change_as_zip])
def test_a_correction_adds_and_removes_some_and_gives_one_a_label(
    form: Form, client: TestClient, parent: str, worker: Worker, sync_store: SyncStore
) -> None:
    answer = client.post(f"/episodes/{parent}/support", **form())
    assert answer.status_code == 202, answer.text
    child = answer.json()
    assert (child["unlabelled"], child["shots"]) == (2, {"beta": 1, "alpha": 1, "gamma": 2})
    images, labels = stored(sync_store, worker, child["id"])
    assert labels == [0, 1, 2, 2, -1, -1]
    np.testing.assert_array_equal(images, read(png(1), png(0), WITHOUT[1], png(3, 9), WITHOUT[2], png(2, 8)))
    assert client.get(f"/episodes/{parent}").json()["unlabelled"] == 3


def test_they_are_part_of_what_an_idempotency_key_stands_for(client: TestClient, parent: str) -> None:
    with_three, with_two = as_json(), as_json()
    with_two["json"]["unlabelled"].pop()
    for path, requests in (
        ("/episodes", (with_three, as_form(), with_two)),
        (
            f"/episodes/{parent}/support",
            (
                {"json": {"unlabelled": [b64(png(0))]}},
                {"files": {"unlabelled": png(0)}},
                {"json": {"unlabelled": [b64(png(1))]}},
            ),
        ),
    ):
        headers = {"Idempotency-Key": f"key of {len(path)}".replace(" ", "-")}
        first, again, other = (client.post(path, headers=headers, **request) for request in requests)
        assert first.json()["id"] == again.json()["id"]
        assert other.json()["type"] == "/problems/idempotency-key-reused"


def test_a_digest_tells_labels_from_their_absence_and_is_as_before_without_such_images() -> None:
    file = ImageFile(b"data", "")
    labelled = SentFiles((LabelledFile("", file),))
    assert labelled.digest({}) != SentFiles((), (file,)).digest({})
    # An earlier release has stored this one: a request that is sent again after an upgrade is still the same.
    before = "e4bce9cccfd5f17b50550dfdc87db1396a43f8ae59fb15c6b5657dde22b1d5b4"
    assert SentFiles((LabelledFile("a", file), LabelledFile("b", file))).digest({"seed": 0}) == before


@pytest.mark.parametrize("form", FORMS)
def test_the_limit_on_images_includes_them(form: Form, limited: Limited) -> None:
    answer = limited(max_images=5).post("/episodes", **form())
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/too-many-images")
    assert limited(max_images=6).post("/episodes", **form()).status_code == 202


def test_the_limit_on_images_of_a_correction_includes_them(limited: Limited, worker: Worker) -> None:
    client = limited(max_images=7)
    parent = create(client)["id"]
    worker.adapt(parent)
    images = [b64(png(0)), b64(png(1))]
    answer = client.post(f"/episodes/{parent}/support", json={"unlabelled": images})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/too-many-images")
    answer = client.post(f"/episodes/{parent}/support", json={"unlabelled": images[:1]})
    assert (answer.status_code, answer.json()["unlabelled"]) == (202, 4)


def test_the_room_in_memory_includes_them(
    in_flight_bytes: BytesInFlight, limited: Limited, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = limited()
    id = create(client)["id"]
    worker.adapt(id)
    # A key may use 32 KiB: what five images take and six do not.
    monkeypatch.setattr(ImageSpec, "bytes", property(lambda _: 6000))
    few = as_json()["json"]
    few["unlabelled"].pop()
    assert client.post("/episodes", json=few).status_code == 202
    requests: list[dict[str, Any]] = [
        {"method": "POST", "url": "/episodes"} | as_json(),
        {"method": "GET", "url": f"/episodes/{id}/support"},
        {"method": "POST", "url": f"/episodes/{id}/support", "json": {"remove": [5]}},
    ]
    for request in requests:
        answer = client.request(**request)
        assert (answer.status_code, answer.json()["type"]) == (429, "/problems/too-much-at-once")
    # An added one takes room, too, whatever is removed.
    monkeypatch.setattr(ImageSpec, "bytes", property(lambda _: 5000))
    path = f"/episodes/{id}/support"
    assert client.post(path, json={"remove": [5]}).status_code == 202
    answer = client.post(path, json={"remove": [5], "unlabelled": [b64(png(0))]})
    assert (answer.status_code, answer.json()["type"]) == (429, "/problems/too-much-at-once")


@pytest.mark.parametrize(
    ("request_", "image"),
    [
        ({"json": as_json()["json"] | {"unlabelled": [b64(png(0)), b64(b"none")]}}, "unlabelled[1]"),
        (
            {"data": as_form()["data"], "files": [*as_form()["files"], ("unlabelled", ("bad.png", b"none"))]},
            "unlabelled[3] (bad.png)",
        ),
        (
            {"files": {"archive": zipped({"a/1.png": png(0), "b/1.png": png(1), "_unlabelled/x.png": b"none"})}},
            "archive: _unlabelled/x.png",
        ),
    ],
    ids=["json", "form", "zip"],
)
def test_one_that_cannot_be_read_is_named_and_nothing_is_stored(
    request_: dict[str, Any], image: str, client: TestClient
) -> None:
    answer = client.post("/episodes", **request_)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-image")
    assert answer.json()["image"] == image
    assert answer.json()["detail"].startswith(f"{image}: ")
    assert client.get("/episodes").json()["episodes"] == []


@pytest.mark.parametrize(
    ("unlabelled", "problem", "place"),
    [
        (["%"], "invalid-base64", {"image": "unlabelled[0]"}),
        ([{"label": "a", "image": ""}], "invalid-request", {"field": "unlabelled[0]"}),
        (None, "invalid-request", {"field": "unlabelled"}),
    ],
)
def test_what_is_no_list_of_images_in_base64_is_refused(
    unlabelled: Any, problem: str, place: dict[str, str], client: TestClient
) -> None:
    answer = client.post("/episodes", json=as_json()["json"] | {"unlabelled": unlabelled})
    assert (answer.status_code, answer.json()["type"]) == (422, f"/problems/{problem}")
    assert answer.json().items() >= place.items()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a/1.png": png(0), "_unlabelled/1.png": png(1)}, "1 classes in 1 images and 1 without a label: at least 2"),
        ({"_unlabelled/a/1.png": png(0), "_unlabelled/b/1.png": png(1)}, "0 classes in 0 images and 2 without a label"),
    ],
)
def test_two_classes_are_still_needed(files: dict[str, bytes], words: str, client: TestClient) -> None:
    answer = client.post("/episodes", files={"archive": ("a.zip", zipped(files))})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/too-few-classes")
    assert answer.json()["detail"].startswith(words)


def test_the_labelled_images_alone_choose_the_model(client: TestClient, sync_store: SyncStore) -> None:
    sync_store.models.register(PHOTOS, b"weights", card(COLOUR))
    drawn = as_json()["json"] | {"unlabelled": [b64(photo(number)) for number in range(9)]}
    assert create(client, json=drawn)["model_kind"] == "drawings"


def test_a_thumbnail_shows_classes_alone(client: TestClient, parent: str) -> None:
    shown = Image.open(io.BytesIO(client.get(f"/episodes/{parent}/thumbnail.png").content))
    assert shown.size == (2 * SPEC.size, SPEC.size)
