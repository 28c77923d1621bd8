"""The reconciler thread of a worker: it sends heartbeats, and removes them when the worker ends."""

from typing import Any

import pytest

from app.settings import Settings
from app.store.clients import SyncStore
from app.store.records import WorkerRecord
from tests.conftest import PrivateRedis
from workers import reconciler
from workers.reconciler import Reconciler


def times_set(server: PrivateRedis) -> int:
    """The number of SET commands that Redis has executed."""
    stats: Any = server.client.info("commandstats")
    return int(stats.get("cmdstat_set", {"calls": 0})["calls"])


def test_heartbeat_is_written_at_intervals_and_removed_at_once(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "HEARTBEAT_S", 3600.0)
    beside = Reconciler(settings, "adapt", "one")
    sync_store.workers.heartbeat(WorkerRecord.now("adapt", "one", "cpu"))
    before = times_set(redis_server)
    for _ in range(4):
        beside._send_heartbeat()
    assert times_set(redis_server) == before + 1
    beside.drain()
    beside._send_heartbeat()
    assert sync_store.workers.get("adapt", "one") is None
    beside.stop()


def test_worker_that_never_became_ready_can_be_stopped(settings: Settings) -> None:
    Reconciler(settings, "adapt", "one").stop()
