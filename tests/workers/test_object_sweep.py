"""A worker sweeps the object store while it runs."""

import os

import pytest

from app.settings import Settings
from app.store.clients import SyncStore
from app.store.objects import Objects, support_name
from app.store.reconciliation import Reconciliation
from tests.chaos.waiting import until
from tests.conftest import PrivateRedis
from workers import object_sweep
from workers.object_sweep import ObjectSweep


def test_what_nobody_names_is_deleted_although_a_sweep_has_failed(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_sweep, "LOOK_S", 0.01)
    made = Reconciliation.sweep_objects
    errors = iter([ConnectionError("Redis is gone"), RuntimeError("unexpected")])

    def sweep(self: Reconciliation) -> int | None:
        if error := next(errors, None):
            raise error
        return made(self)

    monkeypatch.setattr(Reconciliation, "sweep_objects", sweep)
    name = support_name("nobody", b"bytes")
    store = Objects.open(settings)
    store.put(name, b"bytes")
    os.utime(settings.objects_dir / name, (0, 0))
    thread = ObjectSweep(settings)
    thread.start()
    until(lambda: store.get(name) is None, "the object is deleted")
    thread.stop()
