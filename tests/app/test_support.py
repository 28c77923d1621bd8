"""Correcting the images of a finished episode, which creates a new episode and keeps the old one."""

import base64
import io
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.settings import Settings
from app.store import keys
from app.store.clients import SyncStore
from lamanas_core.images import load
from tests.app.playing import SPEC, Worker, b64, png
from tests.app.test_episodes import LABELLED, create_episode
from tests.conftest import PrivateRedis

# LABELLED: beta, alpha, beta, alpha, beta, as kinds 1, 0, 2, 3, 0.
CHANGES: dict[str, Any] = {
    "remove": [2],
    "relabel": [{"image": 4, "label": "alpha"}],
    "add": [{"label": "gamma", "image": b64(png(3, 9))}],
}
FORM = {"remove": "2", "relabel": "4=alpha"}


def as_json() -> dict[str, Any]:
    return {"json": CHANGES}


def as_form() -> dict[str, Any]:
    return {"data": FORM | {"labels": "gamma"}, "files": [("images", ("new.png", png(3, 9)))]}


def as_zip() -> dict[str, Any]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("gamma/new.png", png(3, 9))
    return {"data": FORM, "files": {"archive": ("a.zip", buffer.getvalue())}}


@pytest.fixture
def parent(client: TestClient, worker: Worker) -> str:
    id = str(create_episode(client)["id"])
    worker.adapt(id)
    return id


def correct(client: TestClient, parent: str, **request: Any) -> httpx.Response:
    answer: httpx.Response = client.post(f"/episodes/{parent}/support", **request)
    return answer


@pytest.mark.parametrize("form", [as_json, as_form, as_zip])
def test_a_correction_is_a_new_episode_of_the_kept_and_added_images(
    form: Callable[[], dict[str, Any]], client: TestClient, worker: Worker, sync_store: SyncStore, parent: str
) -> None:
    before = client.get(f"/episodes/{parent}").json()
    answer = correct(client, parent, **form())
    assert answer.status_code == 202, answer.text
    child = answer.json()
    assert answer.headers["location"] == f"../{child['id']}"
    assert (child["parent"], before["parent"]) == (parent, None)
    assert child["id"] != parent
    assert child["classes"] == ["beta", "alpha", "gamma"]
    assert child["shots"] == {"beta": 1, "alpha": 3, "gamma": 1}
    assert (
        (child["seed"], child["model_version"]) == (before["seed"], before["model_version"]) == (7, "0123456789abcdef")
    )
    images, labels = sync_store.claims.support(worker.claim(child["id"]))
    assert labels.tolist() == [0, 1, 1, 1, 2]
    sent = [png(LABELLED[place][1]) for place in (0, 1, 3, 4)] + [png(3, 9)]
    np.testing.assert_array_equal(images, [load(data, SPEC, max_pixels=1000) for data in sent])
    assert client.get(f"/episodes/{parent}").json() == before


def test_stored_images_are_returned_with_their_labels(client: TestClient, parent: str) -> None:
    images = client.get(f"/episodes/{parent}/support").json()["images"]
    assert [image["label"] for image in images] == [label for label, _ in LABELLED]
    # If they are sent again, they are stored unchanged.
    again = create_episode(client, json={"support": images})["id"]
    assert client.get(f"/episodes/{again}/support").json()["images"] == images


def test_a_thumbnail_shows_an_image_of_each_class(client: TestClient, parent: str) -> None:
    answer = client.get(f"/episodes/{parent}/thumbnail.png")
    assert answer.headers["content-type"] == "image/png"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    stored = client.get(f"/episodes/{parent}/support").json()["images"][:2]
    assert [each["label"] for each in stored] == ["beta", "alpha"]
    firsts = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each["image"])))) for each in stored]
    assert np.array_equal(shown, np.concatenate(firsts, axis=1))


def test_a_correction_can_change_options(client: TestClient, parent: str) -> None:
    child = correct(client, parent, json={"steps": 5, "seed": 1, "name": "corrected"}).json()
    assert (child["steps"], child["seed"], child["name"]) == (5, 1, "corrected")
    assert child["shots"] == {"beta": 3, "alpha": 2}
    answer = correct(client, parent, data={"steps": "21"}, files=as_form()["files"])
    assert (answer.status_code, answer.json()["field"]) == (422, "labels")
    answer = correct(client, parent, json={"steps": 21})
    assert (answer.status_code, answer.json()["field"]) == (422, "steps")


def test_a_class_without_images_is_removed_and_a_correction_can_be_corrected(
    client: TestClient, worker: Worker, parent: str
) -> None:
    child = correct(client, parent, json={"remove": [1, 3], "add": CHANGES["add"]}).json()
    assert child["classes"] == ["beta", "gamma"]
    worker.adapt(child["id"])
    grandchild = correct(client, child["id"], json={"relabel": [{"image": 3, "label": "delta"}]}).json()
    assert (grandchild["parent"], grandchild["classes"]) == (child["id"], ["beta", "delta"])


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"remove": [5]}, "invalid-request", "remove[0]"),
    ({"remove": [-1]}, "invalid-request", "remove[0]"),
    ({"remove": ["1"]}, "invalid-request", "remove[0]"),
    ({"remove": [1, 1]}, "invalid-request", "remove[1]"),
    ({"remove": [1], "relabel": [{"image": 1, "label": "a"}]}, "invalid-request", "relabel[0]"),
    ({"relabel": [{"image": 1, "label": "a"}, {"image": 9, "label": "a"}]}, "invalid-request", "relabel[1]"),
    ({"relabel": [{"image": 1, "label": " "}]}, "empty-label", "label"),
    ({"relabel": [{"image": 1, "label": "a", "at": 2}]}, "unknown-field", "relabel[0].at"),
    ({"remove": [1, 3]}, "too-few-classes", "support"),
    ({"support": []}, "unknown-field", "support"),
]


@pytest.mark.parametrize(("requested", "problem", "field"), WRONG)
def test_an_invalid_correction_is_refused_by_field(
    requested: dict[str, Any], problem: str, field: str, client: TestClient, parent: str
) -> None:
    answer = correct(client, parent, json=requested)
    assert (answer.status_code, answer.json()["type"]) == (422, f"/problems/{problem}")
    assert answer.json()["field"] == field
    assert len(client.get("/episodes").json()["episodes"]) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("remove", "x"), ("remove", "٣"), ("remove", "-1"), ("relabel", "3"), ("relabel", "b=3")]
)
def test_an_invalid_index_in_a_form_is_refused_by_field(name: str, value: str, client: TestClient, parent: str) -> None:
    data = {name: value, "labels": "gamma"}
    answer = correct(client, parent, data=data, files=[("images", ("new.png", png(3)))])
    assert (answer.status_code, answer.json()["field"]) == (422, f"{name}[0]")


def test_an_unreadable_added_image_is_named(client: TestClient, parent: str) -> None:
    answer = correct(client, parent, json={"add": [{"label": "a", "image": b64(b"no image")}]})
    assert (answer.json()["type"], answer.json()["image"]) == ("/problems/invalid-image", "add[0].image")


def test_the_limit_on_images_per_class_includes_the_parents_images(
    client: TestClient, parent: str, settings: Settings
) -> None:
    new = [{"label": "beta", "image": b64(png(1, seed))} for seed in range(settings.max_shots - 2)]
    answer = correct(client, parent, json={"add": new})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/too-many-shots")


def test_a_failed_episode_can_be_corrected_and_an_unfinished_one_cannot(client: TestClient, worker: Worker) -> None:
    id = create_episode(client)["id"]
    answer = correct(client, id, **as_json())
    assert (answer.status_code, answer.json()["state"], answer.headers["retry-after"]) == (409, "queued", "1")
    worker.fail(id, "these images are all the same")
    assert correct(client, id, **as_json()).status_code == 202


def test_a_repeated_correction_is_the_same_episode_and_with_another_parent_a_conflict(
    client: TestClient, worker: Worker, parent: str
) -> None:
    headers = {"Idempotency-Key": "c-1"}
    first = correct(client, parent, **as_json(), headers=headers)
    again = correct(client, parent, **as_form(), headers=headers)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    other = create_episode(client)["id"]
    worker.adapt(other)
    answer = correct(client, other, **as_json(), headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/idempotency-key-reused")


def test_expired_images_are_reported_as_gone(client: TestClient, parent: str, server: PrivateRedis) -> None:
    server.client.hdel(keys.SUPPORT_SETS, parent)
    for answer in (client.get(f"/episodes/{parent}/support"), correct(client, parent, **as_json())):
        assert (answer.status_code, answer.json()["type"]) == (410, "/problems/gone")
