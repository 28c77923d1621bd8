"""Redis hangs: it holds its connections and answers nothing. Every request is answered with 503, none is held."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from fastapi.testclient import TestClient
from redis.exceptions import ConnectionError as RedisConnectionError

from app.http.middleware import StoreTime
from app.inference.cache import ClassifierCache
from app.main import create_app
from app.settings import Settings
from app.store import deadline, episodes, keys
from app.store.clients import Store, SyncStore
from app.store.errors import UNAVAILABLE
from app.telemetry.metrics import Metrics
from lamanas_core.image_spec import ImageKind
from tests.app.playing import Worker, b64, png
from tests.app.test_episodes import as_form, as_json, create_episode
from tests.conftest import PrivateRedis
from tests.store.submitting import create

# Far more than the limit, and far less than what the client library takes when it tries each command again.
LIMIT_S, HELD_S = 0.2, 10
INSTALLATION = "/metrics/installation"


@contextmanager
def hanging(server: PrivateRedis) -> Iterator[None]:
    """Inside the block, the limit is short."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        with patch.object(deadline, "REQUEST_S", LIMIT_S):
            yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def answers_unavailable(ask: Callable[[], httpx.Response]) -> None:
    pool = ThreadPoolExecutor(1)
    answer = pool.submit(ask).result(timeout=HELD_S)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable"), answer.text
    assert int(answer.headers["retry-after"]) >= 1


def test_no_request_is_held_while_redis_hangs(client: TestClient, worker: Worker, server: PrivateRedis) -> None:
    id = create_episode(client)["id"]
    worker.adapt(id)
    query = {"episode_id": id, "image": b64(png(0))}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/episodes", {}),
        ("GET", f"/episodes/{id}", {}),
        ("GET", f"/episodes/{id}/model.onnx", {}),
        ("POST", "/episodes", as_json()),
        ("POST", "/episodes", as_form()),
        ("GET", "/predict", {"params": query}),
        ("POST", "/predict", {"json": {"episode_id": id, "images": [b64(png(0))]}}),
        ("DELETE", f"/episodes/{id}", {}),
        ("GET", "/models", {}),
        ("GET", "/readyz", {}),
    ]
    for method, path, arguments in asked:
        with hanging(server):
            answers_unavailable(lambda m=method, p=path, a=arguments: client.request(m, p, **a))  # type: ignore[misc]
    assert client.get(f"/episodes/{id}").status_code == 200


def test_metrics_do_not_report_the_last_known_workers(client: TestClient, worker: Worker, server: PrivateRedis) -> None:
    worker.send_heartbeat()
    alive = 'lamanas_workers{queue="adapt"}'
    assert f"{alive} 1.0" in client.get(INSTALLATION).text
    with hanging(server), ThreadPoolExecutor(1) as pool:
        text = pool.submit(client.get, INSTALLATION).result(timeout=HELD_S).text
    assert "lamanas_redis_up 0.0" in text
    assert alive not in text
    worker.send_heartbeat()
    assert f"{alive} 1.0" in client.get(INSTALLATION).text


def test_that_redis_is_down_can_be_read_where_metrics_need_a_key(
    settings: Settings, sync_store: SyncStore, token: Callable[..., str], server: PrivateRedis
) -> None:
    """Without Redis no key can be checked, so every client gets this one metric and nothing else."""
    headers = {"Authorization": f"Bearer {token('metrics')}", "X-Forwarded-Proto": "https"}
    with TestClient(create_app(settings), headers=headers) as client, hanging(server), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.get, INSTALLATION).result(timeout=HELD_S)
        told = [line for line in answer.text.splitlines() if not line.startswith("#")]
        assert (answer.status_code, told) == (200, ["lamanas_redis_up 0.0"])
        answers_unavailable(lambda: client.get("/metrics"))
        del client.headers["Authorization"]
        assert client.get(INSTALLATION).status_code == 401


def test_all_commands_of_a_request_share_its_time(settings: Settings, server: PrivateRedis) -> None:
    """Each command alone would have the whole limit; the second one finds none left."""

    async def run() -> None:
        store = await Store.open(settings)
        try:
            with deadline.limited(HELD_S):
                record, _ = await create(store)
            with deadline.limited(LIMIT_S), hanging(server):
                with pytest.raises(UNAVAILABLE):
                    await store.episodes.get(record.id)
                with pytest.raises(UNAVAILABLE):
                    async with deadline.waiting():
                        await asyncio.sleep(0)  # takes no time, but there is none
            with deadline.limited(HELD_S):
                assert await store.episodes.get(record.id) == record
        finally:
            await store.close()

    asyncio.run(run())


def test_a_pipeline_has_the_time_of_its_request(settings: Settings, server: PrivateRedis) -> None:
    """As if Redis hung between the two round trips of a request."""

    async def known() -> dict[ImageKind, str]:
        return {"drawings": "0123456789abcdef"}

    async def run() -> None:
        store = await Store.open(settings)
        try:
            assert await store.models.active() == {}  # connects
            with patch.object(store.models, "active_versions", known), hanging(server):
                async with asyncio.timeout(HELD_S):
                    with deadline.limited(LIMIT_S), pytest.raises(UNAVAILABLE):
                        await store.models.active()
        finally:
            await store.close()

    asyncio.run(run())


def test_a_wake_up_that_hangs_does_not_hold_a_request(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr("app.store.jobs.wake", lambda *_: released.wait())

    async def run() -> None:
        store = await Store.open(settings)
        try:
            async with asyncio.timeout(HELD_S):
                with deadline.limited(2), pytest.raises(UNAVAILABLE):
                    await create(store)
            assert (await store.workers.queues())["adapt"].waiting == 1
        finally:
            released.set()
            await store.close()

    asyncio.run(run())


def test_what_outlasts_a_request_has_time_of_its_own(
    settings: Settings, worker: Worker, server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episodes, "USED_S", 0)

    async def run() -> None:
        store = await Store.open(settings)
        classifiers = ClassifierCache(store, Metrics(), capacity=1)
        written, write_used = asyncio.Event(), store.episodes.write_used

        async def watched() -> None:
            await write_used()
            written.set()

        monkeypatch.setattr(store.episodes, "write_used", watched)
        try:
            record, _ = await create(store)
            worker.adapt(record.id)
            with deadline.limited(0):  # of a request, which has used up its time
                await classifiers.loaded(record.id, record.owner)  # others may wait for it too
                async with asyncio.timeout(HELD_S):
                    await written.wait()
                written.clear()
                server.client.zadd(keys.CLASSIFIERS_USED, {record.id: 0})
                assert classifiers.opened(record.id) is not None
                async with asyncio.timeout(HELD_S):
                    await written.wait()
            assert server.client.zscore(keys.CLASSIFIERS_USED, record.id)
        finally:
            classifiers.close()
            await store.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("unable to perform operation on <TCPTransport closed=True>; the handler is closed", RedisConnectionError),
        ("dictionary changed size during iteration", RuntimeError),
    ],
)
def test_a_connection_that_uvloop_has_closed_is_one_that_is_lost(told: str, expected: type[Exception]) -> None:
    async def run() -> None:
        with pytest.raises(expected) as met:
            async with deadline.waiting():
                raise RuntimeError(told)
        assert type(met.value) is expected

    asyncio.run(run())


@pytest.mark.parametrize(("scope", "shared"), [("http", True), ("lifespan", False)])
def test_only_a_request_has_one_limit_for_all_that_it_asks(
    scope: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "REQUEST_S", 0.01)

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    async def app(*_: Any) -> None:
        with pytest.raises(UNAVAILABLE):
            async with deadline.waiting():
                await asyncio.Future()
        with pytest.raises(UNAVAILABLE) if shared else nullcontext():
            async with deadline.waiting():
                pass

    asyncio.run(StoreTime(app)({"type": scope}, nothing, nothing))


def test_a_watched_episode_outlasts_a_redis_that_hangs(
    settings: Settings, worker: Worker, server: PrivateRedis
) -> None:
    async def run() -> None:
        store = await Store.open(settings)
        try:
            with deadline.limited(HELD_S):
                record, _ = await create(store)
            with deadline.limited(0):  # of a request, which has used up its time
                records = store.episodes.watch(record.id)
                async with asyncio.timeout(HELD_S):
                    assert (await anext(records)).state == "queued"
                with hanging(server), pytest.raises(UNAVAILABLE):
                    await store.ping()
                worker.claim(record.id)
                async with asyncio.timeout(HELD_S):
                    assert (await anext(records)).state == "adapting"
        finally:
            await store.close()

    asyncio.run(run())
