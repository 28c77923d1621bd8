"""Predictions: correct, in order, the same in every request format, and never from an ended episode."""

import base64
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.main import create_app
from app.settings import Settings
from app.store import keys
from app.store.clients import SyncStore
from tests.app import playing
from tests.app.playing import Worker, b64, pixels, png, support
from tests.app.test_episodes import create_episode, when_queued
from tests.conftest import PrivateRedis
from tests.images.test_images import encode
from tests.store.observing import drop_classifier
from tests.store.submitting import committed
from tests.waiting import changes


def url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def ready(client: TestClient, worker: Worker) -> str:
    """The id of a finished episode with the classes ``class 0`` to ``class 3``."""
    id: str = create_episode(client, json={"support": support(4, 1)})["id"]
    worker.adapt(id)
    return id


def predict(client: TestClient, id: str, *images: bytes) -> Any:
    return client.get("/predict", params={"episode_id": id, "image": [url64(image) for image in images]})


def test_predictions_are_in_the_order_of_the_images(client: TestClient, ready: str) -> None:
    answer = predict(client, ready, *(png(kind) for kind in (2, 0, 3, 1)))
    body = answer.json()
    assert answer.status_code == 200
    assert (body["episode_id"], body["model_version"]) == (ready, "0123456789abcdef")
    assert [one["label"] for one in body["predictions"]] == ["class 2", "class 0", "class 3", "class 1"]
    for one in body["predictions"]:
        assert list(one["probabilities"]) == [f"class {number}" for number in range(4)]
        assert one["probability"] == max(one["probabilities"].values()) == one["probabilities"][one["label"]]
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert (one["novelty"], one["known"]) == (None, None)  # this classifier does not estimate novelty


@pytest.mark.parametrize("logit", [0.0, 17.844])  # ONNX Runtime's sigmoid of the second value is 1.0000001
def test_novelty_is_a_probability(
    logit: float, client: TestClient, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playing, "classifier", partial(playing.classifier, novelty_logit=logit))
    id: str = create_episode(client)["id"]
    worker.adapt(id)
    answer = predict(client, id, png(0))
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["predictions"]
    assert (found["novelty"], found["known"]) == ((1, False) if logit else (0.5, True))


def test_every_request_format_gives_the_same_predictions(client: TestClient, ready: str) -> None:
    images = [png(1), png(3)]
    expected = predict(client, ready, *images).json()
    padded = client.get("/predict", params={"episode_id": ready, "image": [b64(image) for image in images]})
    body = {"episode_id": ready, "images": [b64(image) for image in images]}
    files = [("images", ("x.png", image)) for image in images]
    assert padded.json() == expected
    assert client.post("/predict", json=body).json() == expected
    assert client.post("/predict", files=files, data={"episode_id": ready}).json() == expected


def test_an_images_prediction_does_not_depend_on_other_images(client: TestClient, ready: str) -> None:
    together = predict(client, ready, png(0, 9), png(1), png(2)).json()["predictions"]
    assert together[0] == predict(client, ready, png(0, 9)).json()["predictions"][0]


def test_a_drawing_and_its_negative_get_the_same_prediction(client: TestClient, ready: str) -> None:
    one, other = (encode(Image.fromarray(array)) for array in (pixels(2), np.asarray(255 - pixels(2), np.uint8)))
    answers = predict(client, ready, one, other).json()["predictions"]
    assert answers[0] == answers[1]


def test_a_matching_etag_is_answered_with_304(client: TestClient, ready: str) -> None:
    params: dict[str, Any] = {"episode_id": ready, "image": url64(png(1))}
    etag = client.get("/predict", params=params).headers["etag"]
    for sent in (etag, f'"other", W/{etag}', "*"):
        again = client.get("/predict", params=params, headers={"If-None-Match": sent})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    other = client.get("/predict", params=params | {"image": url64(png(2))}, headers={"If-None-Match": etag})
    assert other.status_code == 200
    assert other.headers["etag"] != etag


def test_an_episode_that_is_not_ready_is_409_with_its_state(client: TestClient, worker: Worker) -> None:
    id = create_episode(client)["id"]
    waiting = predict(client, id, png(0))
    worker.claim(id)
    adapting = predict(client, id, png(0))
    for answer, state in ((waiting, "queued"), (adapting, "adapting")):
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/not-ready")
        assert (answer.json()["state"], answer.headers["retry-after"]) == (state, "1")


def test_a_failed_episode_is_409_with_its_error(client: TestClient, worker: Worker) -> None:
    id = create_episode(client)["id"]
    worker.fail(id, "no memory left")
    answer = client.get("/predict", params={"episode_id": id, "image": url64(png(0)), "wait": 60})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/episode-failed")
    assert (answer.json()["detail"], answer.json()["state"]) == ("no memory left", "failed")
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("form", ["GET", "POST"])
def test_wait_returns_as_soon_as_the_episode_is_ready(
    form: str, client: TestClient, worker: Worker, server: PrivateRedis
) -> None:
    id = create_episode(client)["id"]
    with ThreadPoolExecutor(1) as pool:
        if form == "GET":
            params = {"episode_id": id, "image": url64(png(0)), "wait": "60"}
            pending = pool.submit(client.get, "/predict", params=params)
        else:
            body = {"episode_id": id, "images": [b64(png(0))]}
            pending = pool.submit(client.post, "/predict?wait=60", json=body)
        assert when_queued(server) == id
        worker.adapt(id)
        assert pending.result().status_code == 200


def test_a_cached_classifier_is_not_used_after_its_episode_has_ended(
    client: TestClient, ready: str, worker: Worker, server: PrivateRedis
) -> None:
    assert predict(client, ready, png(0)).status_code == 200
    other: str = create_episode(client)["id"]
    worker.adapt(other)
    assert predict(client, other, png(0)).status_code == 200
    client.delete(f"/episodes/{ready}")
    gone = (410, "/problems/gone")
    answer = predict(client, ready, png(0))
    assert (answer.status_code, answer.json()["type"]) == gone
    with changes(server.client, keys.CHANGES) as changed:
        server.client.pexpireat(keys.record("episode", other), 1)
        changed.until(lambda: predict(client, other, png(0)).status_code == 410, "the expired one is gone")
    answer = predict(client, other, png(0))
    assert (answer.status_code, answer.json()["type"]) == gone


def value(client: TestClient, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def test_the_cache_keeps_the_most_recently_used_classifiers(
    settings: Settings, sync_store: SyncStore, worker: Worker, token: Callable[..., str]
) -> None:
    headers = {"Authorization": f"Bearer {token('episodes', 'predict')}"}
    hits, misses = (f'lamanas_classifier_cache_total{{outcome="{outcome}"}}' for outcome in ("hit", "miss"))
    with TestClient(create_app(settings.model_copy(update={"predictor_cache": 2})), headers=headers) as client:
        ids = [create_episode(client)["id"] for _ in range(3)]
        for id in ids:
            worker.adapt(id)
        for number in (0, 1, 0, 2, 0, 1):
            assert predict(client, ids[number], png(0)).status_code == 200
        assert (value(client, hits), value(client, misses)) == (2, 4)
        counted = 'lamanas_predictions_total{model="0123456789abcdef",outcome="unjudged"}'
        assert value(client, counted) == 6


IMAGE = url64(png(0))


@pytest.mark.parametrize(
    ("query", "problem", "where"),
    [
        ("episode_id={id}", "invalid-request", {"field": "image"}),
        (f"image={IMAGE}", "invalid-request", {"field": "episode_id"}),
        (f"episode_id={{id}}&image={IMAGE}&images=x", "unknown-field", {"field": "images"}),
        (f"episode_id={{id}}&image={IMAGE}&wait=61", "invalid-request", {"field": "wait"}),
        (f"episode_id={{id}}&image={IMAGE}&image=%21", "invalid-base64", {"image": "image[1]"}),
        (f"episode_id={{id}}&image={IMAGE}&image=AAAA", "invalid-image", {"image": "image[1]"}),
        (f"episode_id={{id}}&image={IMAGE}&image=", "invalid-image", {"image": "image[1]"}),
    ],
)
def test_an_invalid_url_is_refused(
    query: str, problem: str, where: dict[str, str], client: TestClient, ready: str
) -> None:
    answer = client.get("/predict?" + query.format(id=ready))
    body = answer.json()
    assert (answer.status_code, body["type"]) == (422, f"/problems/{problem}")
    assert {name: body.get(name) for name in where} == where


@pytest.mark.parametrize(
    ("request_", "problem", "where"),
    [
        ({"json": {"episode_id": "{id}", "images": []}}, "invalid-request", {"field": "images"}),
        ({"json": {"episode_id": "{id}"}}, "invalid-request", {"field": "images"}),
        ({"json": {"episode_id": "{id}", "images": "AAAA"}}, "invalid-request", {"field": "images"}),
        ({"json": {"episode_id": 1, "images": [IMAGE]}}, "invalid-request", {"field": "episode_id"}),
        ({"json": {"episode_id": "{id}", "images": [IMAGE], "k": 1}}, "unknown-field", {"field": "k"}),
        ({"json": {"episode_id": "{id}", "images": [IMAGE, "?"]}}, "invalid-base64", {"image": "images[1]"}),
        ({"json": {"episode_id": "{id}", "images": [IMAGE] * 1001}}, "too-many-images", {"field": "images"}),
        ({"files": {"images": ("a.png", b"no")}, "data": {"episode_id": "{id}"}}, "invalid-image", {}),
        ({"files": {"images": ("a.png", b"no")}}, "invalid-request", {"field": "episode_id"}),
        ({"files": {"image": ("a.png", b"no")}, "data": {"episode_id": "{id}"}}, "unknown-field", {"field": "image"}),
    ],
)
def test_an_invalid_body_is_refused(
    request_: dict[str, Any], problem: str, where: dict[str, str], client: TestClient, ready: str
) -> None:
    filled = {
        part: {name: ready if text == "{id}" else text for name, text in fields.items()} if part != "files" else fields
        for part, fields in request_.items()
    }
    answer = client.post("/predict", **filled)
    body = answer.json()
    assert (answer.status_code, body["type"]) == (422, f"/problems/{problem}"), body
    assert {name: body.get(name) for name in where} == where


def test_a_url_may_have_about_six_kilobytes_and_no_more(client: TestClient, ready: str) -> None:
    image = png(0)
    padded = image + bytes(6144 * 3 // 4 - len(image))
    assert predict(client, ready, padded).status_code == 200
    answer = predict(client, ready, padded + bytes(600))
    assert (answer.status_code, answer.json()["type"]) == (414, "/problems/url-too-long")


def test_a_dropped_classifier_is_adapted_again(
    client: TestClient, ready: str, worker: Worker, server: PrivateRedis
) -> None:
    drop_classifier(server.client, ready)
    assert client.get(f"/episodes/{ready}").json()["state"] == "ready"
    answer = predict(client, ready, png(1))
    assert (answer.status_code, answer.json()["type"], answer.json()["state"]) == (409, "/problems/not-ready", "queued")
    assert answer.headers["Retry-After"] == "1"
    assert "dropped to make room" in answer.json()["detail"]
    assert client.get(f"/episodes/{ready}/model.onnx").status_code == 409
    worker.adapt(ready)
    assert predict(client, ready, png(1)).json()["predictions"][0]["label"] == "class 1"


def test_an_open_classifier_answers_while_it_is_made_again(
    client: TestClient, settings: Settings, ready: str, worker: Worker, server: PrivateRedis
) -> None:
    assert predict(client, ready, png(1)).status_code == 200
    drop_classifier(server.client, ready)
    with TestClient(create_app(settings), headers=client.headers) as other:  # an app process that has not opened it
        assert predict(other, ready, png(1)).status_code == 409
        claim = worker.claim(ready)
        assert client.get(f"/episodes/{ready}").json()["state"] == "adapting"
        assert predict(client, ready, png(1)).json()["predictions"][0]["label"] == "class 1"
        worker.finish(claim)
        assert predict(other, ready, png(1)).status_code == 200


def test_a_prediction_can_wait_for_a_dropped_classifier(
    client: TestClient, ready: str, worker: Worker, server: PrivateRedis
) -> None:
    drop_classifier(server.client, ready)
    query = {"episode_id": ready, "image": url64(png(1)), "wait": "60"}
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(client.get, "/predict", params=query)
        worker.adapt(when_queued(server))
        answer = asking.result()
    assert answer.status_code == 200, answer.text


def test_a_classifier_that_cannot_be_opened_here_is_answered_with_503(client: TestClient, worker: Worker) -> None:
    id = create_episode(client)["id"]
    claim = worker.claim(id)
    assert committed(worker.store.claims, claim, {"step": 1, "losses": [0.5]}, {}, b"of a later release")
    answer = client.post("/predict", json={"episode_id": id, "images": [b64(png(0))]})
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert "release" not in answer.text
