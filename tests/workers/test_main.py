"""A worker's number of pool processes, and what it does when Celery reports a start, a shutdown or a dead process."""

from pathlib import Path
from typing import cast

import pytest
import torch
from billiard.exceptions import WorkerLostError
from celery import signals
from redis import Redis

from app.settings import Settings
from app.store.clients import SyncStore
from app.store.errors import NotFound
from app.store.records import WorkerRecord
from tests.conftest import test_settings as settings_in
from tests.store.submitting import DRAWINGS, PHOTOS
from workers import tasks
from workers.child import Child
from workers.learner import Learner
from workers.main import _connect, pool_processes
from workers.reconciler import Reconciler
from workers.sweep import Sweep


class Task:
    name = "adapt"


class Recorded:
    """Replaces the reconciler."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def start(self) -> None:
        self.calls.append(("start",))

    def drain(self) -> None:
        self.calls.append(("drain",))

    def child_died(self, task: str, id: str) -> None:
        self.calls.append(("child_died", task, id))


def test_adapt_worker_has_the_configured_processes_and_train_worker_one(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, adapt_processes=3)
    assert (pool_processes(settings, "adapt"), pool_processes(settings, "train")) == (3, 1)


def test_a_worker_chooses_its_device_as_the_commands_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU this is also what makes its results reproducible."""
    asked: list[str] = []

    def choose_device(wanted: str) -> str:
        asked.append(wanted)
        return "cuda"

    monkeypatch.setattr("lamanas_core.devices.choose_device", choose_device)
    learner = Learner(settings_in(tmp_path, device="auto"), cast(SyncStore, None), torch.get_num_threads())
    assert (learner.device, asked) == ("cuda", ["auto"])
    monkeypatch.undo()
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeError, match="LAMANAS_DEVICE: cuda was requested"):
        Learner(settings_in(tmp_path, device="cuda"), cast(SyncStore, None), torch.get_num_threads())


@pytest.mark.parametrize(
    ("signal", "sent", "expected"),
    [
        (signals.worker_ready, {}, [("start",)]),
        (signals.worker_shutting_down, {}, [("drain",)]),
        (signals.task_failure, {"exception": WorkerLostError(), "args": ("id1",)}, [("child_died", "adapt", "id1")]),
        (signals.task_failure, {"exception": WorkerLostError(), "args": ()}, []),
        (signals.task_failure, {"exception": ValueError(), "args": ("id1",)}, []),
    ],
)
def test_signals_of_celery_reach_the_reconciler(
    signal: signals.Signal, sent: dict[str, object], expected: list[tuple[str, ...]]
) -> None:
    recorded, sweep = Recorded(), Recorded()
    handlers = _connect(cast(Reconciler, recorded), cast(Sweep, sweep))
    signal.send(sender=Task(), **sent)
    assert recorded.calls == expected
    assert sweep.calls == [call for call in expected if call == ("start",)]
    del handlers


def test_a_worker_registers_the_shipped_model_where_redis_lost_it(settings: Settings, sync_store: SyncStore) -> None:
    learner = Learner(settings, sync_store, torch.get_num_threads())
    learner.register_shipped()
    active = sync_store.models.active_versions()
    version = active["drawings"]
    Redis.from_url(settings.store_url).flushall()
    assert learner.model(version).version == version
    assert sync_store.models.active_versions() == active
    with pytest.raises(NotFound, match="there is no model version none"):
        learner.model("none")


def test_a_model_that_cannot_be_opened_does_not_keep_a_worker_from_starting(
    sync_store: SyncStore, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The backbone of a model for photos is missing on this machine, say: drawings can be adapted to."""
    opened: list[str] = []

    class Opening:
        device = "cpu"

        def register_shipped(self) -> None:
            sync_store.models.register("lacking", b"", PHOTOS)
            sync_store.models.register("whole", b"", DRAWINGS)

        def model(self, version: str) -> None:
            if version == "lacking":
                raise ValueError("there is no backbone")
            opened.append(version)

    announced: list[WorkerRecord] = []
    monkeypatch.setattr(tasks, "announce", announced.append)
    child = Child(settings.model_copy(update={"adapt_batch": 2}), sync_store, "adapt", "one")
    child.__dict__["learner"] = Opening()
    assert tasks._warmed_up(child) is child
    assert "LAMANAS_ADAPT_BATCH is for GPUs" in caplog.text
    assert opened == ["whole"]
    assert len(announced) == 1
    assert "the active model for photos, lacking, cannot be opened: there is no backbone" in caplog.text
