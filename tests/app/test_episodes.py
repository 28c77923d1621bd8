"""Episodes over HTTP: creating, following, reading, listing and deleting them."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.main import create_app
from app.settings import Settings
from app.store import keys
from app.store.clients import SyncStore
from lamanas_core.artifact import Classifier
from lamanas_core.images import preprocess
from tests.app.playing import SPEC, Worker, b64, pixels, png, support
from tests.conftest import PrivateRedis
from tests.waiting import changes

LABELLED = [("beta", 1), ("alpha", 0), ("beta", 2), ("alpha", 3), ("beta", 0)]


def as_json() -> dict[str, Any]:
    return {"json": {"support": [{"label": label, "image": b64(png(kind))} for label, kind in LABELLED], "seed": 7}}


def as_form() -> dict[str, Any]:
    return {
        "files": [("images", (f"{number}.png", png(kind))) for number, (_, kind) in enumerate(LABELLED)],
        "data": {"labels": [label for label, _ in LABELLED], "seed": "7"},
    }


def as_zip() -> dict[str, Any]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("beta/", b"")
        archive.writestr(".DS_Store", b"litter")
        for number, (label, kind) in enumerate(LABELLED):
            archive.writestr(f"{label}/{number}.png", png(kind))
            archive.writestr(f"__MACOSX/{label}/._{number}.png", b"litter")
        archive.writestr("beta/Thumbs.db", b"litter")
    return {"files": {"archive": ("a.zip", buffer.getvalue())}, "data": {"seed": "7"}}


def create_episode(client: TestClient, **request: Any) -> dict[str, Any]:
    answer = client.post("/episodes", **(request or as_json()))
    assert answer.status_code == 202, answer.text
    episode: dict[str, Any] = answer.json()
    return episode


@pytest.mark.parametrize("form", [as_json, as_form, as_zip])
def test_each_request_format_stores_the_same_support_set_in_the_order_sent(
    form: Callable[[], dict[str, Any]], client: TestClient, worker: Worker, sync_store: SyncStore
) -> None:
    answer = client.post("/episodes", **form())
    episode = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"episodes/{episode['id']}"
    assert answer.headers["retry-after"] == "1"
    assert episode["classes"] == ["beta", "alpha"]
    assert episode["shots"] == {"beta": 3, "alpha": 2}
    images, labels = sync_store.claims.support(worker.claim(episode["id"]))
    assert labels.tolist() == [0, 1, 0, 1, 0]
    expected = np.stack([preprocess(Image.fromarray(pixels(kind)), SPEC) for _, kind in LABELLED])
    np.testing.assert_array_equal(images, expected)


def test_an_episode_tells_how_its_archive_was_read(client: TestClient, worker: Worker) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("symbols/train/a/1.png", "symbols/test/a/2.png", "symbols/train/b/1.png", "symbols/plan.pdf"):
            archive.writestr(name, png(len(name)))
    episode = create_episode(client, files={"archive": ("a.zip", buffer.getvalue())})
    assert episode["shots"] == {"a": 2, "b": 1}
    told = ["3 added, 1 skipped: symbols/plan.pdf", "train and test are splits: the images of a class are joined"]
    assert episode["warnings"] == told
    worker.adapt(episode["id"])
    assert client.get(f"/episodes/{episode['id']}").json()["warnings"] == [*told, "unlike what the model knows"]


def test_a_new_episode_contains_the_requested_options(client: TestClient) -> None:
    requested = {"support": support(), "steps": 5, "seed": 9, "name": "two symbols"}
    episode = create_episode(client, json=requested)
    assert episode["state"] in ("queued", "adapting")
    assert (episode["steps"], episode["seed"], episode["name"]) == (5, 9, "two symbols")
    assert episode["progress"] == {"step": 0, "steps": 5, "loss": [], "ahead": 0}
    assert episode["model_version"] == "0123456789abcdef"
    empty = (
        "genotype",
        "parameters",
        "support_accuracy",
        "leave_one_out_accuracy",
        "unlabelled_belonging",
        "adapt_seconds",
        "error",
    )
    assert [episode[name] for name in empty] == [None] * len(empty)
    created, expires = (datetime.fromisoformat(episode[name]) for name in ("created_at", "expires_at"))
    assert episode["created_at"].endswith("Z")
    assert (expires - created).total_seconds() == pytest.approx(86_400, abs=1)


def test_a_waiting_episode_tells_how_many_wait_before_it(client: TestClient, worker: Worker) -> None:
    first, second, third = (create_episode(client)["id"] for _ in range(3))

    def ahead(id: str) -> int | None:
        place: int | None = client.get(f"/episodes/{id}").json()["progress"]["ahead"]
        return place

    assert [ahead(id) for id in (first, second, third)] == [0, 1, 2]
    claim = worker.claim(first)
    assert [ahead(id) for id in (first, second, third)] == [None, 0, 1]
    worker.finish(claim)


def test_steps_default_to_the_models_steps(client: TestClient) -> None:
    assert create_episode(client)["steps"] == 3


def test_a_finished_episode_contains_its_results(client: TestClient, worker: Worker) -> None:
    id = create_episode(client)["id"]
    worker.adapt(id)
    answer = client.get(f"/episodes/{id}")
    episode = answer.json()
    assert "retry-after" not in answer.headers
    assert episode["state"] == "ready"
    assert episode["progress"] == {"step": 3, "steps": 3, "loss": [0.3, 0.2, 0.1], "ahead": None}
    assert episode["parameters"] == {"kept": 10, "total": 40}
    assert episode["genotype"]["normal"][0]["inputs"][0]["operations"] == [{"name": "skip", "weight": 1.0}]
    assert (episode["support_accuracy"], episode["leave_one_out_accuracy"]) == (1.0, 0.75)
    assert episode["unlabelled_belonging"] == 0.25
    assert episode["warnings"] == ["unlike what the model knows"]
    first, second = episode["classes"][:2]
    assert episode["suspects"] == [{"image": 0, "label": first, "likelier": second, "times": 40.5}]
    assert episode["adapt_seconds"] == 0.5


@pytest.fixture
def in_background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def when_queued(server: PrivateRedis) -> str:
    """Waits until an episode is queued; returns its id."""
    queue = keys.queued("episode")
    with changes(server.client, keys.CHANGES) as changed:
        changed.until(lambda: bool(server.client.zcard(queue)), "an episode in the queue")
    ids: Any = server.client.zrange(queue, 0, 0)
    return str(ids[0].decode())


def test_prefer_wait_returns_the_finished_episode(
    client: TestClient, worker: Worker, server: PrivateRedis, in_background: ThreadPoolExecutor
) -> None:
    pending = in_background.submit(client.post, "/episodes", **as_json(), headers={"Prefer": "wait=60"})
    worker.adapt(when_queued(server))
    answer = pending.result()
    assert answer.status_code == 201
    assert answer.json()["state"] == "ready"
    assert answer.headers["location"] == f"episodes/{answer.json()['id']}"
    assert answer.headers["preference-applied"] == "wait=60"


def test_prefer_wait_returns_202_after_a_timeout(client: TestClient) -> None:
    answer = client.post("/episodes", **as_json(), headers={"Prefer": "respond-async, wait=1"})
    assert answer.status_code == 202
    assert answer.json()["state"] == "queued"


def test_prefer_wait_returns_a_failure_at_once_and_not_as_201(
    client: TestClient, worker: Worker, server: PrivateRedis, in_background: ThreadPoolExecutor
) -> None:
    pending = in_background.submit(client.post, "/episodes", **as_json(), headers={"Prefer": "wait=60"})
    worker.fail(when_queued(server), "no memory left")
    answer = pending.result()
    assert answer.status_code == 202
    assert (answer.json()["state"], answer.json()["error"]) == ("failed", "no memory left")


def test_an_invalid_preference_is_ignored(client: TestClient) -> None:
    assert client.post("/episodes", **as_json(), headers={"Prefer": "wait=soon"}).status_code == 202


def test_the_same_idempotency_key_returns_the_same_episode_in_any_request_format(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = client.post("/episodes", **as_json(), headers=headers)
    again = client.post("/episodes", **as_form(), headers=headers)
    assert first.json()["id"] == again.json()["id"]
    assert (first.status_code, again.status_code) == (202, 202)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(client.get("/episodes").json()["episodes"]) == 1


def test_an_idempotency_key_of_a_different_request_is_refused(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k-1"}
    client.post("/episodes", **as_json(), headers=headers)
    other = client.post("/episodes", json={"support": support()}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert len(client.get("/episodes").json()["episodes"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a b"])
def test_an_idempotency_key_must_be_visible_ascii(key: str, client: TestClient) -> None:
    answer = client.post("/episodes", **as_json(), headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")


def test_listing_pages_through_all_episodes_newest_first(client: TestClient) -> None:
    ids = [create_episode(client)["id"] for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    for expected in (2, 2, 1):
        page = client.get("/episodes", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["episodes"]) == expected
        seen += [episode["id"] for episode in page["episodes"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert sorted(seen, reverse=True) == sorted(ids, reverse=True) == seen


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=*", "offset=3"])
def test_an_invalid_page_parameter_is_refused_by_name(query: str, client: TestClient) -> None:
    answer = client.get(f"/episodes?{query}")
    assert (answer.status_code, answer.json()["field"]) == (422, query.partition("=")[0])


def test_the_artifact_is_the_one_that_the_worker_committed(client: TestClient, worker: Worker) -> None:
    id = create_episode(client)["id"]
    early = client.get(f"/episodes/{id}/model.onnx")
    assert (early.status_code, early.json()["state"], early.headers["retry-after"]) == (409, "queued", "1")
    worker.adapt(id)
    answer = client.get(f"/episodes/{id}/model.onnx")
    assert answer.headers["content-disposition"] == f'attachment; filename="{id}.onnx"'
    assert Classifier.from_bytes(answer.content).classes == ("beta", "alpha")


def test_a_failed_episode_has_an_error_and_no_artifact(client: TestClient, worker: Worker) -> None:
    id = create_episode(client)["id"]
    worker.fail(id, "no memory left")
    answer = client.get(f"/episodes/{id}/model.onnx")
    problem = answer.json()
    assert (answer.status_code, problem["type"], problem["detail"], problem["state"]) == (
        409,
        "/problems/episode-failed",
        "no memory left",
        "failed",
    )
    assert "retry-after" not in answer.headers


WAYS_IN = ["/episodes/{id}", "/episodes/{id}/events", "/episodes/{id}/model.onnx", "/predict?episode_id={id}&image=AA"]


@pytest.mark.parametrize("path", WAYS_IN)
def test_an_unknown_episode_is_404_and_a_deleted_or_expired_one_410(
    path: str, client: TestClient, server: PrivateRedis
) -> None:
    deleted, expired = create_episode(client)["id"], create_episode(client)["id"]
    assert client.delete(f"/episodes/{deleted}").status_code == 204
    # Simulates the expiry: Redis deletes a key at once if its expiry time is in the past.
    server.client.pexpireat(keys.record("episode", expired), 1)
    for id, status, problem in ((keys.new_id(), 404, "not-found"), (deleted, 410, "gone"), (expired, 410, "gone")):
        answer = client.get(path.format(id=id))
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{problem}")


@pytest.mark.parametrize("path", WAYS_IN)
def test_a_deleted_episode_of_another_tenant_is_404(path: str, client: TestClient, token: Callable[..., str]) -> None:
    id = create_episode(client)["id"]
    client.delete(f"/episodes/{id}")
    stranger = {"Authorization": f"Bearer {token('episodes', 'predict', tenant='others')}"}
    answer = client.get(path.format(id=id), headers=stranger)
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
    admin = {"Authorization": f"Bearer {token('admin')}"}
    assert client.get(path.format(id=id), headers=admin).status_code == 410


def test_a_deleted_episode_is_not_listed(client: TestClient) -> None:
    id = create_episode(client)["id"]
    client.delete(f"/episodes/{id}")
    assert client.get("/episodes").json() == {"episodes": [], "next_cursor": None}
    assert client.delete(f"/episodes/{id}").status_code == 410


def test_a_full_queue_is_503_with_retry_after(
    settings: Settings, sync_store: SyncStore, token: Callable[..., str]
) -> None:
    headers = {"Authorization": f"Bearer {token('episodes')}"}
    with TestClient(create_app(settings.model_copy(update={"max_queue": 1})), headers=headers) as client:
        create_episode(client)
        answer = client.post("/episodes", **as_json())
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/queue-full")
    assert int(answer.headers["retry-after"]) >= 1


def test_without_a_model_a_new_episode_is_503(client: TestClient, server: PrivateRedis) -> None:
    server.client.delete(keys.ACTIVE_MODELS)
    answer = client.post("/episodes", **as_json())
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert "retry-after" in answer.headers


def read_event(lines: Iterator[str]) -> tuple[str, dict[str, Any]]:
    """The name and data of the next event."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line and fields:
            return fields["event"], json.loads(fields["data"])
        name, colon, value = line.partition(": ")
        if colon and name:
            fields[name] = value
    raise AssertionError("the stream ended")


def test_events_report_each_step_and_end_with_the_finished_episode(
    live: str, worker: Worker, token: Callable[..., str]
) -> None:
    with httpx.Client(base_url=live, headers={"Authorization": f"Bearer {token('episodes')}"}, timeout=60) as client:
        id = client.post("/episodes", **as_json()).json()["id"]
        with client.stream("GET", f"/episodes/{id}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            assert read_event(lines) == ("progress", {"step": 0, "steps": 3, "loss": [], "ahead": 0})
            claim = worker.claim(id)
            worker.step(claim, [0.5])
            event = read_event(lines)
            while event[1]["step"] == 0:
                event = read_event(lines)
            assert event == ("progress", {"step": 1, "steps": 3, "loss": [0.5], "ahead": None})
            worker.finish(claim)
            name, episode = read_event(lines)
            assert (name, episode["id"], episode["state"]) == ("ready", id, "ready")
            assert not any(lines)


def test_events_of_a_failed_episode_end_with_its_error(client: TestClient, worker: Worker) -> None:
    id = create_episode(client)["id"]
    worker.fail(id, "no memory left")
    name, episode = read_event(iter(client.get(f"/episodes/{id}/events").text.splitlines()))
    assert (name, episode["error"]) == ("failed", "no memory left")


def test_events_of_an_episode_that_is_then_deleted_end_with_gone(live: str, token: Callable[..., str]) -> None:
    with httpx.Client(base_url=live, headers={"Authorization": f"Bearer {token('episodes')}"}, timeout=60) as client:
        id = client.post("/episodes", **as_json()).json()["id"]
        with client.stream("GET", f"/episodes/{id}/events") as stream:
            lines = stream.iter_lines()
            assert read_event(lines)[0] == "progress"
            assert httpx.delete(f"{live}/episodes/{id}", headers=client.headers).status_code == 204
            name, problem = read_event(lines)
            assert (name, problem["status"]) == ("gone", 410)


def test_unavailable_redis_is_503_with_retry_after(redis_server: PrivateRedis) -> None:
    store = SyncStore.open(redis_server.settings)
    _, token = store.api_keys.create("test", ["episodes"])
    store.close()
    with TestClient(create_app(redis_server.settings), headers={"Authorization": f"Bearer {token}"}) as client:
        redis_server.stop()
        answer = client.get("/episodes")
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
        assert "retry-after" in answer.headers
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").json()["checks"]["redis"] is False
        assert "lamanas_redis_up 0.0" in client.get("/metrics/installation").text


LABELS = ["e\u0301 ", "\u00e9", "b", "\u2003b"]


def test_labels_are_normalised_as_the_names_of_folders_are(client: TestClient, worker: Worker) -> None:
    images = [png(kind) for kind in range(4)]
    in_json = {"support": [{"label": label, "image": b64(image)} for label, image in zip(LABELS, images, strict=True)]}
    form = {"files": [("images", ("x.png", image)) for image in images], "data": {"labels": LABELS}}
    for request in ({"json": in_json}, form):
        episode = create_episode(client, **request)
        assert episode["shots"] == {"\u00e9": 2, "b": 2}
        told = [f"labels that look the same are one class: {label}" for label in ("b", "\u00e9")]
        assert episode["warnings"][:2] == told
    worker.adapt(episode["id"])
    correction = {"relabel": [{"image": 1, "label": " c "}], "add": [{"label": "c\u2003", "image": b64(png(0, 9))}]}
    assert client.post(f"/episodes/{episode['id']}/support", json=correction).json()["shots"] == {
        "\u00e9": 1,
        "b": 2,
        "c": 2,
    }
