"""A worker's number of pool processes, and what it does when Celery reports a start, a shutdown or a dead process."""

from pathlib import Path
from typing import cast

import pytest
from billiard.exceptions import WorkerLostError
from celery import signals

from tests.conftest import test_settings as settings_in
from workers.main import _connect, pool_processes
from workers.reconciler import Reconciler


class Task:
    name = "adapt"


class Recorded:
    """Stands in for a reconciler."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def start(self) -> None:
        self.calls.append(("start",))

    def drain(self) -> None:
        self.calls.append(("drain",))

    def child_died(self, task: str, id: str) -> None:
        self.calls.append(("child_died", task, id))


def test_adaptations_run_in_as_many_processes_as_set_and_trainings_in_one(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, adapt_processes=3)
    assert (pool_processes(settings, "adapt"), pool_processes(settings, "train")) == (3, 1)


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
    recorded = Recorded()
    handlers = _connect(cast(Reconciler, recorded))
    signal.send(sender=Task(), **sent)
    assert recorded.calls == expected
    del handlers
