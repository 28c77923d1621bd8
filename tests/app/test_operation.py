"""Health checks, metrics, the OpenAPI document, and the headers of every response."""

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.http.middleware import UnexpectedErrors
from app.main import create_app
from app.services import Services
from app.settings import Settings
from app.store import keys, objects
from app.store.clients import SyncStore
from app.store.errors import ObjectsUnavailableError
from app.store.objects import Objects
from tests.app.playing import CARD, Worker, support
from tests.app.test_episodes import as_json, create_episode
from tests.chaos.waiting import until
from tests.conftest import PrivateRedis, test_settings

METRICS = ("/metrics", "/metrics/installation")


def test_ready_once_redis_a_model_and_a_worker_are_available(
    anonymous: TestClient, worker: Worker, server: PrivateRedis
) -> None:
    early = anonymous.get("/readyz")
    assert (early.status_code, early.headers["content-type"]) == (503, "application/problem+json")
    passed = {"not_draining": True, "redis": True, "model": True, "adapt_worker": True, "objects": True}
    assert early.json()["checks"] == passed | {"adapt_worker": False}
    worker.send_heartbeat()
    assert anonymous.get("/readyz").json() == {
        "ready": True,
        "checks": passed,
    }
    server.client.delete(keys.ACTIVE_MODELS)
    assert anonymous.get("/readyz").json()["checks"]["model"] is False


def test_not_ready_while_the_object_store_fails(
    client: TestClient, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("no space left")

    worker.send_heartbeat()
    for use in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("obstore.put", broken)
            assert client.post("/episodes", json={"support": support()}).status_code == 503
        assert client.get("/readyz").json()["checks"]["objects"] is False
        if use:  # it has been used since
            create_episode(client)
        else:  # it has not been used for some time, and may work again
            monkeypatch.setattr(objects, "FAILED_S", -1.0)
        assert client.get("/readyz").json()["checks"]["objects"] is True
        monkeypatch.undo()


def test_draining_app_is_alive_and_not_ready(settings: Settings, worker: Worker) -> None:
    worker.send_heartbeat()
    app = create_app(settings)
    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 200
        services: Services = app.state.services
        services.draining.set()
        assert client.get("/readyz").json()["checks"]["not_draining"] is False
        assert client.get("/healthz").json() == {"status": "ok"}


def test_app_without_redis_or_worker_is_alive_and_not_ready(
    settings: Settings, worker: Worker, sync_store: SyncStore, short_folder: Path
) -> None:
    worker.send_heartbeat()
    with TestClient(create_app(settings)) as client:
        sync_store.workers.remove("adapt", "played")
        assert client.get("/readyz").json()["checks"]["adapt_worker"] is False
    # Simulates that Redis is unavailable: no server listens on this socket.
    with TestClient(create_app(test_settings(short_folder))) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["checks"]["redis"] is False
        assert client.get("/healthz").status_code == 200
        assert "lamanas_redis_up 0.0" in client.get("/metrics/installation").text


def test_draining_ends_a_waiting_request_with_the_current_state(
    settings: Settings, worker: Worker, client: TestClient
) -> None:
    app = create_app(settings)
    with TestClient(app, headers=client.headers) as draining:
        app.state.services.draining.set()
        id = create_episode(draining)["id"]
        with ThreadPoolExecutor(1) as pool:
            query = {"episode_id": id, "image": "AA", "wait": 60}
            # The timeout is well below 60 s, after which the response would be the same.
            answer = pool.submit(draining.get, "/predict", params=query).result(timeout=20)
        assert (answer.status_code, answer.json()["state"]) == (409, "queued")
        assert draining.get(f"/episodes/{id}/events").status_code == 200


# What makes Redis refuse writes, and what undoes it.
REFUSALS = {
    "it is out of memory": ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "it has become a replica": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "it has too few replicas": ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    "its user may not ask for its memory": ("ACL SETUSER default -info", "ACL SETUSER default +info"),
    "its user may not write": ("ACL SETUSER default -hset", "ACL SETUSER default +hset"),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_redis_that_accepts_no_writes_is_503_and_nothing_is_left_of_the_request(
    why: str, client: TestClient, server: PrivateRedis
) -> None:
    redis: Any = server.client

    def names() -> tuple[list[bytes], list[Path]]:
        """Of all that is stored, in Redis and in the object store."""
        files = (path for path in server.settings.objects_dir.rglob("*") if path.is_file())
        return sorted(redis.keys("*")), sorted(files)

    assert client.get("/episodes").status_code == 200
    before = names()
    refuse, accept = REFUSALS[why]
    redis.execute_command(*refuse.split())
    try:
        answer = client.post("/episodes", json={"support": support()})
    finally:
        redis.execute_command(*accept.split())
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert answer.json()["detail"] == "the store currently accepts no writes"
    assert answer.headers["retry-after"] == "2"
    until(lambda: names() == before, "what was stored is deleted")
    assert client.post("/episodes", json={"support": support()}).status_code == 202


def test_metrics_count_requests_by_route_without_ids(client: TestClient, worker: Worker) -> None:
    worker.send_heartbeat()
    id = create_episode(client)["id"]
    client.get(f"/episodes/{id}")
    client.get("/nothing/here")
    text = client.get("/metrics").text + client.get("/metrics/installation").text
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["lamanas_http_requests_total", "/episodes", "202", "POST"] == 1
    assert samples["lamanas_http_requests_total", "/episodes/{id}", "200", "GET"] == 1
    assert samples["lamanas_http_requests_total", "404", "GET", "unmatched"] == 1
    assert samples["lamanas_queue_length", "adapt"] == 1
    assert samples["lamanas_workers", "adapt"] == 1
    assert samples[("lamanas_redis_up",)] == 1
    assert id not in text


def test_metrics_need_a_key_except_on_this_machine_or_where_they_are_open(
    settings: Settings, token: Callable[..., str]
) -> None:
    def statuses(*requests: dict[str, str], **values: Any) -> list[int]:
        with TestClient(create_app(Settings.model_validate(settings.model_dump() | values))) as client:
            asked = [[client.get(path, headers=headers) for path in METRICS] for headers in requests]
        assert [first.status_code for first, second in asked] == [second.status_code for first, second in asked]
        return [first.status_code for first, _ in asked]

    keys = [{}, *({"Authorization": f"Bearer {token(scope)}"} for scope in ("predict", "metrics", "admin"))]
    assert statuses(*keys, host="0.0.0.0") == [401, 403, 200, 200]  # noqa: S104
    assert statuses(*keys, host="127.0.0.1") == [200, 200, 200, 200]
    assert statuses(keys[0], host="0.0.0.0", open_metrics=True) == [200]  # noqa: S104
    forwarded = {"X-Forwarded-Proto": "https"}
    assert statuses(forwarded, forwarded | keys[2], host="127.0.0.1") == [401, 200]


def test_every_response_has_the_security_headers(client: TestClient) -> None:
    for path in ("/healthz", "/nothing", "/episodes", "/episodes?limit=x", "/docs"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"].startswith("default-src 'self';")


def test_an_unknown_path_is_a_problem(client: TestClient) -> None:
    missing, wrong = client.get("/nothing"), client.put("/episodes")
    assert (missing.status_code, missing.json()["type"]) == (404, "/problems/not-found")
    assert (wrong.status_code, wrong.json()["type"]) == (405, "/problems/method-not-allowed")
    assert wrong.headers["allow"] == "GET, HEAD, POST"
    for answer in (missing, wrong):
        assert answer.headers["content-type"] == "application/problem+json"


def test_an_unexpected_error_is_a_problem_without_details(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("app.store.jobs.Jobs.page", broken)
    answer = client.get("/episodes")
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/internal")
    assert "secret" not in answer.text


def test_an_unexpected_error_is_counted_logged_and_has_a_request_id(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("app.store.jobs.Jobs.page", broken)
    answer = client.get("/episodes", headers={"X-Request-ID": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["x-content-type-options"] == "nosniff"
    counted = 'lamanas_http_requests_total{method="GET",route="/episodes",status="500"} 1.0'
    assert counted in client.get("/metrics").text
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [RuntimeError]


def test_why_the_object_store_fails_is_logged_and_not_told(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ObjectsUnavailableError("no space left on /secret")

    monkeypatch.setattr(Objects, "put", broken)
    answer = client.post("/episodes", json={"support": support()})
    assert (answer.status_code, answer.json()["detail"]) == (503, "the store does not respond")
    assert "POST /episodes: no space left on /secret" in caplog.text


@pytest.mark.parametrize(("error", "sent"), [(ClientDisconnect, []), (RuntimeError, [500])])
def test_a_client_that_disconnects_within_its_body_is_no_error(error: type[Exception], sent: list[int]) -> None:
    async def broken(*_: object) -> None:
        raise error

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    statuses: list[int] = []

    async def send(message: Message) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    asyncio.run(UnexpectedErrors(broken)({"type": "http", "method": "POST"}, receive, send))
    assert statuses == sent


def references(node: Any) -> set[str]:
    return set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(node)))


def test_the_openapi_document_is_complete(settings: Settings) -> None:
    document = create_app(settings).openapi()
    schemas = document["components"]["schemas"]
    assert {reference.rpartition("/")[2] for reference in references(document)} <= set(schemas)
    assert all(reference.startswith("#/components/schemas/") for reference in references(document))
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], f"{method} {path}"
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"], f"{method} {path} {status}"
    bodies = [
        operation.get("requestBody") for operation in (document["paths"][p]["post"] for p in ("/episodes", "/predict"))
    ]
    for body in bodies:
        assert set(body["content"]) == {"application/json", "multipart/form-data"}
        assert body["content"]["application/json"]["example"]


def test_the_examples_of_the_openapi_document_are_accepted(client: TestClient, settings: Settings) -> None:
    content = create_app(settings).openapi()["paths"]["/episodes"]["post"]["requestBody"]["content"]
    assert client.post("/episodes", json=content["application/json"]["example"]).status_code == 202


def test_a_model_that_redis_lost_is_unavailable_and_not_unknown(
    client: TestClient, sync_store: SyncStore, server: PrivateRedis
) -> None:
    sync_store.models.register("fedcba9876543210", b"weights", CARD)
    server.client.delete(keys.model("0123456789abcdef"))  # the active one
    assert [model["version"] for model in client.get("/models").json()["models"]] == ["fedcba9876543210"]
    assert client.get("/readyz").json()["checks"]["model"] is False
    answer = client.post("/episodes", **as_json())
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    sync_store.models.register("0123456789abcdef", b"weights", CARD)
    assert client.post("/episodes", **as_json()).status_code == 202
