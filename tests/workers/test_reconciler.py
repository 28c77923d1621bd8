"""The reconciler thread of a worker: it sends heartbeats, and removes them when the worker ends."""

import asyncio
from typing import Any

import pytest

from app.settings import Settings
from app.store import keys
from app.store.clients import Store, SyncStore
from app.store.objects import Objects
from app.store.records import Queue, WorkerRecord
from tests.conftest import PrivateRedis
from tests.store.submitting import DRAWINGS, submit
from workers import reconciler
from workers.readiness import Readiness, announce
from workers.reconciler import Reconciler

READY = WorkerRecord.now("adapt", "host-1", "cpu")


def heartbeats(server: PrivateRedis) -> int:
    """The number of heartbeats that Redis has received."""
    stats: Any = server.client.info("commandstats")
    return int(stats.get("cmdstat_zadd", {"calls": 0})["calls"])


def test_heartbeat_is_written_at_intervals_and_removed_at_once(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "HEARTBEAT_S", 3600.0)
    beside = Reconciler(settings, "adapt", "host-1", lambda: READY)
    before = heartbeats(redis_server)
    for _ in range(4):
        beside._send_heartbeat()
    assert heartbeats(redis_server) == before + 1
    beside.drain()
    beside._send_heartbeat()
    assert sync_store.workers.count_on_host("adapt", "host") == 0
    beside.stop()


def test_requeuing_waits_for_no_object_store(
    redis_server: PrivateRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: object) -> None:
        pytest.fail("an object was deleted beside the heartbeats")

    monkeypatch.setattr(Objects, "delete", unexpected)
    id = submit_expired(redis_server, settings)
    beside = Reconciler(settings, "adapt", "host-1", lambda: READY)
    beside._reconcile()
    assert redis_server.client.hexists(keys.SUPPORT_SETS, id)
    beside.stop()


def submit_expired(server: PrivateRedis, settings: Settings) -> str:
    """The id of an episode that has expired and is not removed yet."""
    id = asyncio.run(submit(settings)).id
    server.client.zadd(keys.EXPIRY, {f"{id} owner1": 1})
    return id


async def _starting(settings: Settings) -> dict[Queue, int]:
    store = await Store.open(settings)
    try:
        return {queue: state.starting for queue, state in (await store.workers.queues()).items()}
    finally:
        await store.close()


def test_a_worker_that_is_not_ready_is_starting(
    settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "HEARTBEAT_S", 0.0)
    ready: list[WorkerRecord] = []
    beside = Reconciler(settings, "adapt", "host-1", lambda: ready[0] if ready else None)
    beside._send_heartbeat()
    assert asyncio.run(_starting(settings)) == {"adapt": 1, "train": 0}
    assert sync_store.workers.count_on_host("adapt", "host") == 0
    ready.append(READY)
    beside._send_heartbeat()
    assert asyncio.run(_starting(settings)) == {"adapt": 0, "train": 0}
    assert sync_store.workers.count_on_host("adapt", "host") == 1
    beside.stop()


def test_worker_whose_first_heartbeat_is_lost_is_listed_by_the_next(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "HEARTBEAT_S", 0.0)
    readiness = Readiness()
    beside = Reconciler(settings, "train", "host-1", readiness.worker)
    beside._send_heartbeat()
    assert sync_store.workers.count_on_host("train", "host") == 0
    announce(WorkerRecord.now("train", "host-1", "cpu"))
    for _ in range(2):
        redis_server.client.flushall()
        beside._send_heartbeat()
        assert sync_store.workers.count_on_host("train", "host") == 1
    beside.stop()
    readiness.close()


def test_worker_that_never_became_ready_can_be_stopped(settings: Settings) -> None:
    Reconciler(settings, "adapt", "one", lambda: None).stop()


def test_only_the_lease_of_a_job_whose_process_died_ends_at_once(settings: Settings, sync_store: SyncStore) -> None:
    ids = [asyncio.run(submit(settings)).id for _ in range(2)]
    for id in ids:
        assert sync_store.claims.claim("episode", id, "one") is not None
    beside = Reconciler(settings, "adapt", "one", lambda: READY)
    beside.child_died("lamanas.train", ids[0])
    assert sync_store.reconciliation.due("episode") == []
    beside.child_died("lamanas.adapt", ids[0])
    assert sync_store.reconciliation.due("episode") == [ids[0]]
    beside.stop()


def test_a_lost_model_is_asked_for_once_in_a_while_by_a_worker_that_had_it(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "HEARTBEAT_S", 0.0)
    asked = redis_server.client
    announced: list[WorkerRecord | None] = [None]
    beside, train = (Reconciler(settings, queue, "one", lambda: announced[-1]) for queue in ("adapt", "train"))
    for each in (beside, train):
        each._send_heartbeat()  # not ready yet: no model is registered
    announced.append(READY)
    assert asked.llen("lamanas.adapt") == 0
    for each in (train, beside, beside):
        each._send_heartbeat()
    assert asked.llen("lamanas.adapt") == 1
    sync_store.models.register("v1", b"weights", DRAWINGS)
    beside._send_heartbeat()
    redis_server.client.delete(keys.model("v1"))
    beside._send_heartbeat()
    assert asked.llen("lamanas.adapt") == 2
    for each in (beside, train):
        each.stop()
