"""Celery's tasks: they get an id, everything else is in the store."""

import logging
import os
import signal

from celery import shared_task, signals

from app.queue import TASKS
from app.store.records import WorkerRecord
from workers import adapt, logs, train
from workers.child import Child
from workers.claims import patiently

log = logging.getLogger(__name__)
_child: Child | None = None


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _start(**_: object) -> None:
    """Runs in each pool process before its first task."""
    global _child
    logs.set_up()
    try:
        _child = _warmed_up(Child.make())
    except Exception:
        # A pool process that cannot work would be replaced by another one for ever: the whole worker ends instead.
        log.exception("this worker cannot start")
        os.kill(os.getppid(), signal.SIGTERM)


def _warmed_up(child: Child) -> Child:
    """Torch and the active meta-model are loaded before a client comes. A trainer imports torch at its first run only:
    it waits most of its life."""
    device: str = child.settings.device
    if child.queue == "adapt":
        patiently(child.learner.register_shipped)
        active = patiently(child.store.active_version)
        if active is not None:
            patiently(lambda: child.learner.model(active))
        device = child.learner.device
    patiently(lambda: child.store.present(WorkerRecord.now(child.queue, child.name, device)))
    return child


@shared_task(name=TASKS["episode"])  # type: ignore[untyped-decorator]
def adapt_episode(id: str) -> None:
    """Wakes an adapt worker up for one episode."""
    adapt.run(_started(), id)


@shared_task(name=TASKS["training"])  # type: ignore[untyped-decorator]
def train_model(id: str) -> None:
    """Wakes a train worker up for one run."""
    train.run(_started(), id)


def _started() -> Child:
    if _child is None:
        raise RuntimeError("this process did not start up (see the log above)")
    return _child
