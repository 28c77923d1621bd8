"""Overload: limits for each key and in total, and that health checks still respond beyond them."""

import asyncio
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event, Semaphore
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError
from starlette.types import Message, Scope

from app.http import limits, sse
from app.http.limits import BytesInFlight, Upload
from app.http.middleware import SizeLimits
from app.http.problems import Problem
from app.images import edits, forms
from app.routes import episodes, predict
from app.settings import PHOTO_BYTES, Settings
from app.store import keys
from lamanas_core.image_spec import ImageSpec
from tests.app.conftest import Limited, serving
from tests.app.playing import SPEC, Worker, b64, png, support
from tests.app.test_episodes import as_form, as_json, create_episode
from tests.chaos.waiting import until
from tests.conftest import PrivateRedis, test_settings
from tests.waiting import PATIENCE_S


def refused(answer: Any, status: int, problem: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{problem}"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1


def still_answers(client: TestClient) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/metrics").status_code == 200


# ---------------------------------------------------------------------- rate


def test_a_key_over_its_rate_gets_retry_after_and_other_keys_are_served(
    limited: Limited, token: Callable[..., str]
) -> None:
    client = limited(rate_limit="3/hour")
    for _ in range(3):
        assert client.get("/episodes").status_code == 200
    answer = client.get("/episodes")
    refused(answer, 429, "rate-limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 1200
    still_answers(client)
    assert client.get("/episodes", headers={"Authorization": f"Bearer {token('episodes')}"}).status_code == 200


def test_a_bucket_is_refilled_evenly(limited: Limited, server: PrivateRedis) -> None:
    client = limited(rate_limit="2/hour")
    assert [client.get("/episodes").status_code for _ in range(3)] == [200, 200, 429]
    (bucket,) = server.client.scan_iter(keys.bucket("*"))
    # Simulates that half an hour has passed: this adds one token, not two.
    server.client.hincrby(bucket, "at", -1_800_000)
    assert [client.get("/episodes").status_code for _ in range(2)] == [200, 429]
    server.client.hincrby(bucket, "at", -7_200_000 * 24)
    assert [client.get("/episodes").status_code for _ in range(3)] == [200, 200, 429]


def test_without_a_rate_nothing_is_counted(client: TestClient, server: PrivateRedis) -> None:
    assert client.get("/episodes").status_code == 200
    assert list(server.client.scan_iter(keys.bucket("*"))) == []


@pytest.mark.parametrize("rate", ["20", "20/day", "0/second", "-1/second", "a lot"])
def test_an_invalid_rate_is_refused_at_startup(rate: str, settings: Settings) -> None:
    with pytest.raises(ValidationError, match="600/minute"):
        test_settings(settings.data_dir, rate_limit=rate)


# ---------------------------------------------------------------------- episodes of one tenant


def test_a_tenant_has_its_share_of_the_queue_and_regains_it(
    limited: Limited, worker: Worker, token: Callable[..., str]
) -> None:
    client = limited(max_unfinished=2)
    ids = [create_episode(client)["id"] for _ in range(2)]
    refused(client.post("/episodes", **as_json()), 429, "too-much-at-once")
    other = client.post("/episodes", **as_json(), headers={"Authorization": f"Bearer {token('episodes')}"})
    assert other.status_code == 202
    claim = worker.claim(ids[0])
    refused(client.post("/episodes", **as_json()), 429, "too-much-at-once")
    worker.finish(claim)
    client.delete(f"/episodes/{ids[1]}")
    assert [client.post("/episodes", **as_json()).status_code for _ in range(3)] == [202, 202, 429]
    still_answers(client)


def test_a_repeated_request_is_answered_although_the_share_is_used_up(limited: Limited) -> None:
    client = limited(max_unfinished=1)
    again = {"Idempotency-Key": "one"}
    first = client.post("/episodes", **as_json(), headers=again)
    assert client.post("/episodes", **as_json(), headers=again).json()["id"] == first.json()["id"]


# ---------------------------------------------------------------------- bytes in flight


def body_of(size: int) -> dict[str, Any]:
    return {"content": b" " * size, "headers": {"content-type": "application/json"}}


def test_a_request_over_the_total_of_bytes_in_flight_is_503(in_flight_bytes: BytesInFlight, limited: Limited) -> None:
    client = limited()
    for other in ("one", "two"):
        in_flight_bytes.reserve(other, 32 * 1024)
    answer = client.post("/episodes", **as_json())
    refused(answer, 503, "busy")
    assert "requests in progress have 0.07 MB, at most 0.07 MB are accepted: try again" in answer.json()["detail"]
    refused(client.post("/episodes", **as_form()), 503, "busy")
    still_answers(client)
    for other in ("one", "two"):
        in_flight_bytes.release(other, 32 * 1024)
    assert client.post("/episodes", **as_json()).status_code == 202


def test_one_key_may_use_half_of_the_bytes_in_flight(in_flight_bytes: BytesInFlight, limited: Limited) -> None:
    client = limited()
    answer = client.post("/episodes", **body_of(33 * 1024))
    refused(answer, 429, "too-much-at-once")
    words = "unanswered requests of this key have 0.04 MB, at most 0.04 MB at a time are accepted: wait for an answer"
    assert words in answer.json()["detail"]
    pieces = {"content": (bytes(1024) for _ in range(33)), "headers": {"content-type": "application/json"}}
    refused(client.post("/episodes", **pieces), 429, "too-much-at-once")
    assert client.post("/episodes", **body_of(31 * 1024)).status_code == 400


def test_an_unauthenticated_request_reserves_no_bytes(in_flight_bytes: BytesInFlight, limited: Limited) -> None:
    client = limited()
    answer = client.post("/episodes", **body_of(60 * 1024) | {"headers": {"Authorization": "Bearer lam_wrong"}})
    assert answer.status_code == 401


def test_the_bytes_in_flight_must_allow_for_two_requests(settings: Settings) -> None:
    with pytest.raises(ValidationError, match="LAMANAS_MAX_BYTES_IN_FLIGHT"):
        test_settings(settings.data_dir, max_request_bytes=2**20, max_images=2, max_bytes_in_flight=2**21)
    most = 2 * (2**20 + 2 * PHOTO_BYTES)
    test_settings(settings.data_dir, max_request_bytes=2**20, max_images=2, max_bytes_in_flight=most)


@pytest.mark.parametrize("how", ["create", "correct", "predict"])
def test_decoded_images_count_like_the_bytes_of_a_request(
    how: str, in_flight_bytes: BytesInFlight, limited: Limited, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = limited()
    parent = create_episode(client)["id"]
    worker.adapt(parent)
    # Each image takes 16 KiB when it is decoded: two of them fit into the half of a key, three do not.
    monkeypatch.setattr(ImageSpec, "bytes", property(lambda _: 16 * 1024 - 1000))
    image = b64(png(0))
    path, few, many = {
        "create": ("/episodes", {"support": support(ways=2, shots=1)}, {"support": support(ways=3, shots=1)}),
        "correct": (f"/episodes/{parent}/support", {"remove": [0]}, {"add": support(ways=2, shots=1)}),
        "predict": (
            "/predict",
            {"episode_id": parent, "images": [image] * 2},
            {"episode_id": parent, "images": [image] * 3},
        ),
    }[how]
    refused(client.post(path, json=many), 429, "too-much-at-once")
    if how != "correct":
        assert client.post(path, json=few).status_code < 300


@pytest.mark.parametrize(
    ("allowed", "problem"), [({"max_images": 6}, "too-many-images"), ({"max_shots": 3}, "too-many-shots")]
)
def test_a_correction_with_too_many_images_is_told_so_whatever_they_take(
    allowed: dict[str, int],
    problem: str,
    in_flight_bytes: BytesInFlight,
    limited: Limited,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = limited(**allowed)
    parent = create_episode(client)["id"]
    worker.adapt(parent)
    monkeypatch.setattr(ImageSpec, "bytes", property(lambda _: 16 * 1024))
    added = [{"label": "beta", "image": b64(png(0))}] * 2
    answer = client.post(f"/episodes/{parent}/support", json={"add": added})
    assert (answer.status_code, answer.json()["type"]) == (422, f"/problems/{problem}")


@pytest.mark.parametrize("what", ["support", "thumbnail.png"])
def test_stored_images_count_while_they_are_read(
    what: str, in_flight_bytes: BytesInFlight, limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = limited()
    path = f"/episodes/{create_episode(client)['id']}/{what}"
    assert client.get(path).status_code == 200
    # The episode has five images, and a key the half of 64 KiB. What other requests have is not this key's.
    monkeypatch.setattr(ImageSpec, "bytes", property(lambda _: 6 * 1024))
    in_flight_bytes.reserve("", 20 * 1024)
    assert client.get(path).status_code == 200
    in_flight_bytes.release("", 20 * 1024)
    monkeypatch.setattr(ImageSpec, "bytes", property(lambda _: 7 * 1024))
    refused(client.get(path), 429, "too-much-at-once")


class Sender:
    """A client that sends chunks of a body, each after a pause on its clock. After the last one it sends nothing."""

    def __init__(self, *chunks: bytes, pause: float = 0.0) -> None:
        self.now = 1000.0
        self._chunks = list(chunks)
        self._pause = pause

    def monotonic(self) -> float:
        return self.now

    async def receive(self) -> Message:
        if not self._chunks:
            self.now += limits.BEHIND_S
            return await asyncio.Future()
        await asyncio.sleep(0)  # a moment in which a limit that has passed ends the wait
        self.now += self._pause
        return {"type": "http.request", "body": self._chunks.pop(0), "more_body": True}


def uploading(sender: Sender, in_flight: BytesInFlight, announced: int = 0, max_body_bytes: int = 2**30) -> Upload:
    headers = [(b"content-length", str(announced).encode())] if announced else []
    return Upload({"type": "http", "headers": headers}, sender.receive, in_flight, max_body_bytes)


async def until_refused(upload: Upload) -> str:
    """Receives the body. The name of the problem that ends it."""

    async def receive() -> None:
        while True:
            await upload.receive()

    with pytest.raises(Problem) as met:
        await asyncio.wait_for(receive(), PATIENCE_S)
    return met.value.kind.name


def test_what_is_announced_and_not_sent_takes_no_room() -> None:
    in_flight = BytesInFlight(1024)

    async def run() -> None:
        idle = [uploading(Sender(b"x"), in_flight, announced=400) for _ in range(10)]
        for upload in idle:
            await upload.receive()
        assert in_flight.total == 10
        for upload in idle:
            upload.let_go()
        assert in_flight.total == 0

    asyncio.run(run())


def test_the_bytes_in_flight_are_told_after_each_change() -> None:
    told: list[int] = []
    in_flight = BytesInFlight(1024, told.append)
    in_flight.reserve("one", 100)
    in_flight.reserve("other", 50)
    with pytest.raises(Problem):
        in_flight.reserve("one", 500)
    in_flight.release("one", 100)
    assert told == [100, 150, 50]


def test_a_body_that_stops_is_refused_and_releases_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BEHIND_S", 0.01)
    in_flight = BytesInFlight(1024)
    met: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        met.append(await until_refused(scope["state"]["upload"]))
        assert in_flight.total == 2

    async def send(message: Message) -> None:
        raise AssertionError(message)

    scope: Scope = {"type": "http", "path": "/", "query_string": b"", "headers": []}
    limited = SizeLimits(app, max_body_bytes=1024, in_flight=in_flight)
    asyncio.run(limited(scope, Sender(b"x", b"x").receive, send))
    assert (met, in_flight.total) == (["body-too-slow"], 0)


@pytest.mark.parametrize(("size", "received"), [(1, 2), (10 * limits.BYTES_PER_S, 3)])
def test_a_body_may_fall_behind_the_rate_for_so_long_in_all(
    size: int, received: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pause is too long by itself: each takes 20 s of 30."""
    sender = Sender(*[bytes(size)] * 9, pause=20.0)
    monkeypatch.setattr(limits, "time", sender)
    in_flight = BytesInFlight(2**30)
    assert asyncio.run(until_refused(uploading(sender, in_flight))) == "body-too-slow"
    assert in_flight.total == received * size


def test_a_body_at_the_rate_may_take_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 20 * limits.BYTES_PER_S
    sender = Sender(*[bytes(size)] * 9, pause=20.0)
    monkeypatch.setattr(limits, "time", sender)

    async def run() -> int:
        upload = uploading(sender, BytesInFlight(2**30))
        return sum([len((await upload.receive())["body"]) for _ in range(9)])

    assert asyncio.run(run()) == 9 * size


@pytest.mark.parametrize("correcting", [False, True])
def test_an_upload_is_let_go_before_the_response_waits(
    in_flight_bytes: BytesInFlight, limited: Limited, worker: Worker, monkeypatch: pytest.MonkeyPatch, correcting: bool
) -> None:
    client = limited()
    path, body = "/episodes", as_form()
    if correcting:
        parent = create_episode(client)["id"]
        worker.adapt(parent)
        path, body = f"/episodes/{parent}/support", {"json": {"add": support(ways=2, shots=1)}}
    freed, waiting, let_wait = Event(), Event(), sse.last_within

    async def last_within(*given: Any) -> Any:
        waiting.set()
        return await let_wait(*given)

    module, name = (edits, "read") if correcting else (episodes, "read_support")
    read = getattr(module, name)

    async def noted(*given: Any) -> Any:
        found = await read(*given)
        weakref.finalize(found, freed.set)
        return found

    monkeypatch.setattr(module, name, noted)
    monkeypatch.setattr(sse, "last_within", last_within)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, path, **body, headers={"Prefer": "wait=60"})
        assert waiting.wait(PATIENCE_S)
        assert in_flight_bytes.total == 0
        assert freed.wait(PATIENCE_S)
        assert not answer.done()
        (id,) = [each["id"] for each in client.get("/episodes").json()["episodes"] if each["state"] == "queued"]
        worker.adapt(id)
        assert answer.result(PATIENCE_S).status_code == 201


@pytest.mark.parametrize("form", [True, False])
def test_images_to_be_predicted_are_decoded_before_the_response_waits(
    form: bool, in_flight_bytes: BytesInFlight, limited: Limited, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = limited()
    id = create_episode(client)["id"]
    freed, waiting, let_wait = Semaphore(0), Event(), sse.last_within

    async def noted(*given: Any) -> Any:
        found = await forms.read_queries(*given)
        for file in found[1]:
            weakref.finalize(file, freed.release)
        return found

    async def last_within(*given: Any) -> Any:
        waiting.set()
        return await let_wait(*given)

    monkeypatch.setattr(predict, "read_queries", noted)
    monkeypatch.setattr(sse, "last_within", last_within)
    images = [png(1), png(0), png(1)]
    body: dict[str, Any] = {"json": {"episode_id": id, "images": [b64(image) for image in images]}}
    if form:
        body = {"files": [("images", image) for image in images], "data": {"episode_id": id}}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, "/predict?wait=60", **body)
        assert waiting.wait(PATIENCE_S)
        for _ in images:  # the decoding thread sets its result before it drops its references to them
            assert freed.acquire(timeout=PATIENCE_S)
        assert not answer.done()
        assert in_flight_bytes.total == 3 * SPEC.bytes
        worker.adapt(id)
        found = answer.result(PATIENCE_S)
    assert found.status_code == 200, found.text
    assert [one["label"] for one in found.json()["predictions"]] == ["alpha", "beta", "alpha"]


def test_an_image_that_cannot_be_read_is_told_before_the_response_waits(limited: Limited) -> None:
    client = limited()
    body = {"episode_id": create_episode(client)["id"], "images": [b64(png(0)), b64(b"no image")]}
    answer = client.post("/predict?wait=60", json=body)
    assert (answer.status_code, answer.json()["image"]) == (422, "images[1]")


# ---------------------------------------------------------------------- event streams


def test_a_key_may_follow_so_many_episodes_at_a_time(
    settings: Settings, worker: Worker, token: Callable[..., str]
) -> None:
    mine, other = ({"Authorization": f"Bearer {token('episodes', tenant='t')}"} for _ in range(2))
    changed = Settings.model_validate(settings.model_dump() | {"max_streams": 2})
    with serving(changed) as url, httpx.Client(base_url=url, headers=mine, timeout=60) as client, ExitStack() as open:
        ids = [client.post("/episodes", **as_json()).json()["id"] for _ in range(2)]
        streams = [open.enter_context(client.stream("GET", f"/episodes/{id}/events")) for id in ids]
        assert [stream.status_code for stream in streams] == [200, 200]
        with client.stream("GET", f"/episodes/{ids[0]}/events") as stream:
            assert stream.status_code == 429
            stream.read()
            refused(stream, 429, "too-much-at-once")
        with client.stream("GET", f"/episodes/{ids[0]}/events", headers=other) as stream:
            assert stream.status_code == 200
        for id in ids:
            worker.adapt(id)
        for stream in streams:
            assert "event: ready" in "".join(stream.iter_text())
        until(lambda: client.get(f"/episodes/{ids[0]}/events").status_code == 200, "an ended stream is not counted", 60)
