"""Overload: limits for each key and in total, and that health checks still respond beyond them."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError
from starlette.types import Message, Scope

from app.http.limits import BytesInFlight
from app.http.middleware import SizeLimits
from app.http.problems import Problem
from app.main import create_app
from app.settings import Settings
from app.store import keys
from tests.app.conftest import serving
from tests.app.playing import Worker
from tests.app.test_episodes import as_form, as_json, create_episode
from tests.chaos.waiting import until
from tests.conftest import PrivateRedis, test_settings

Limited = Callable[..., TestClient]


@pytest.fixture
def limited(settings: Settings, token: Callable[..., str]) -> Iterator[Limited]:
    """A client with a new key, for an app with these settings."""
    opened: list[TestClient] = []

    def make(**values: Any) -> TestClient:
        changed = Settings.model_validate(settings.model_dump() | values)
        client = TestClient(create_app(changed), headers={"Authorization": f"Bearer {token('episodes', 'predict')}"})
        opened.append(client.__enter__())
        return client

    yield make
    for client in opened:
        client.__exit__()


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


@pytest.fixture
def in_flight_bytes(monkeypatch: pytest.MonkeyPatch) -> Iterator[BytesInFlight]:
    """The counter of an app that is created in this test."""
    in_flight = BytesInFlight(64 * 1024)
    monkeypatch.setattr("app.main.BytesInFlight", lambda max_bytes: in_flight)
    yield in_flight
    assert in_flight.total == 0


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
        test_settings(settings.data_dir, max_request_bytes=2**20, max_bytes_in_flight=2**20)


def test_an_interrupted_body_releases_its_bytes() -> None:
    in_flight = BytesInFlight(1024)
    met: list[Problem] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        try:
            while True:
                await receive()
        except Problem as problem:
            assert in_flight.total == 400
            met.append(problem)

    async def client() -> None:
        first: list[Message] = [{"type": "http.request", "body": b"x", "more_body": True}]

        async def receive() -> Message:
            return first.pop() if first else await asyncio.Future()

        async def send(message: Message) -> None:
            raise AssertionError(message)

        scope: Scope = {"type": "http", "path": "/", "query_string": b"", "headers": [(b"content-length", b"400")]}
        limits = SizeLimits(app, max_body_bytes=1024, in_flight=in_flight, body_timeout_s=0.01)
        await limits(scope, receive, send)

    asyncio.run(client())
    assert [problem.kind.name for problem in met] == ["body-too-slow"]
    assert in_flight.total == 0


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
