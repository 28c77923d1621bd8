"""A worker removes leftovers while it runs."""

import os
from collections.abc import Iterator

import pytest

from app.settings import Settings
from app.store import keys, leftovers
from app.store.clients import SyncStore
from app.store.objects import Objects, support_name
from app.store.reconciliation import Reconciliation
from tests.chaos.waiting import until
from tests.conftest import PrivateRedis
from workers import sweep
from workers.sweep import Sweep


def test_expired_episodes_are_removed_although_removing_has_failed_before(
    redis_server: PrivateRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "LOOK_S", 0.01)
    made = Reconciliation.sweep
    errors = iter([ConnectionError("Redis is gone"), RuntimeError("unexpected")])

    def sweep_once(reconciliation: Reconciliation) -> int:
        if error := next(errors, None):
            raise error
        return made(reconciliation)

    monkeypatch.setattr(Reconciliation, "sweep", sweep_once)
    redis_server.client.zadd(keys.EXPIRY, {f"id{number} owner": number for number in range(1, 202)})
    thread = Sweep(settings)
    thread.start()
    until(lambda: not redis_server.client.exists(keys.EXPIRY), "the episodes are removed")
    thread.stop()


def test_what_nobody_names_is_deleted_although_removing_has_failed_before(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "LOOK_S", 0.01)
    made = leftovers.remove
    errors = iter([ConnectionError("Redis is gone"), RuntimeError("unexpected")])

    def remove(settings: Settings, store: SyncStore) -> Iterator[str]:
        store.reconciliation._redis.delete(keys.LEFTOVERS_REMOVED)  # as if an hour had passed
        if error := next(errors, None):
            raise error
        return made(settings, store)

    monkeypatch.setattr(leftovers, "remove", remove)
    sync_store.installation.check()
    name = support_name("nobody", b"bytes")
    store = Objects.open(settings)
    store.put(name, b"bytes")
    os.utime(settings.objects_dir / name, (0, 0))
    thread = Sweep(settings)
    thread.start()
    until(lambda: store.get(name) is None, "the object is deleted")
    thread.stop()
