"""Celery's tasks. Their only argument is an id; everything else is in the store."""

import logging
import os
import signal
from functools import partial

from celery import shared_task, signals

from app.queue import REGISTER_SHIPPED, TASKS
from app.store.records import WorkerRecord
from workers import adapt, logs, train
from workers.child import Child
from workers.claims import retrying
from workers.readiness import announce

log = logging.getLogger(__name__)
_child: Child | None = None


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _start(**_: object) -> None:
    """Runs in each pool process before its first task."""
    global _child
    logs.set_up()
    try:
        _child = _warmed_up(Child.from_environment())
    except Exception:
        # Celery would restart pool processes forever, and each would fail: the whole worker ends instead.
        log.exception("this worker cannot start")
        os.kill(os.getppid(), signal.SIGTERM)


def _warmed_up(child: Child) -> Child:
    """Loads torch and the active meta-models before the first episode. A train worker imports torch at its first run,
    since it is idle most of the time."""
    device: str = child.settings.device
    retrying(child.store.installation.admit)
    if child.queue == "adapt":
        retrying(child.store.reconciliation.adopt_former)
        retrying(child.learner.register_shipped)
        for kind, version in retrying(child.store.models.active_versions).items():
            try:
                retrying(partial(child.learner.model, version))
            except ValueError as error:  # this machine lacks its backbone, say; the other kind can be adapted to
                log.error("the active model for %s, %s, cannot be opened: %s", kind, version, error)
        device = child.learner.device
        if child.settings.adapt_batch > 1 and device == "cpu":
            log.warning("LAMANAS_ADAPT_BATCH is for GPUs: without one, this worker adapts one episode at a time")
    announce(WorkerRecord.now(child.queue, child.name, device))
    return child


@shared_task(name=TASKS["episode"])  # type: ignore[untyped-decorator]
def adapt_episode(id: str) -> None:
    """The wake-up for one episode."""
    adapt.run(_started(), id)


@shared_task(name=TASKS["training"])  # type: ignore[untyped-decorator]
def train_model(id: str) -> None:
    """The wake-up for one training run."""
    train.run(_started(), id)


@shared_task(name=REGISTER_SHIPPED)  # type: ignore[untyped-decorator]
def register_shipped() -> None:
    """Registers the shipped model again, which Redis has lost."""
    retrying(_started().learner.register_shipped)


def _started() -> Child:
    if _child is None:
        raise RuntimeError("this pool process could not start (see the log above)")
    return _child
