"""Sends heartbeats and due wake-ups from a worker's parent process, which otherwise only runs its pool."""

import logging
import math
import threading
import time
from collections.abc import Callable

from celery import Celery
from kombu.exceptions import OperationalError

from app.queue import ask_for_shipped, celery_app, wake
from app.settings import Settings
from app.store.claims import LEASE_S
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE
from app.store.keys import QUEUE_OF
from app.store.records import Queue, WorkerRecord

log = logging.getLogger(__name__)
RECONCILE_S = 0.25
# Each heartbeat is a write that Redis syncs to its disk.
HEARTBEAT_S = 1.0
# After a request to register the shipped model has brought back none of the lost ones.
ASK_AGAIN_S = 30.0


class Reconciler:
    """A thread, which every worker runs for all queues: the scripts let only one worker act on each job."""

    def __init__(self, settings: Settings, queue: Queue, name: str, ready: Callable[[], WorkerRecord | None]) -> None:
        """``ready``: what there is to be said of this worker once its pool is ready, None until then."""
        self._settings = settings
        self._store = SyncStore.open(settings)
        self._celery: Celery = celery_app(settings)
        self._queue = queue
        self._name = name
        self._ready = ready
        self._ended = threading.Event()
        self._draining = threading.Event()
        self._removed = False
        self._heartbeat_at = -HEARTBEAT_S
        self._lost: set[str | None] = set()
        self._asked_at = 0.0
        self._unavailable_at = -math.inf
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def drain(self) -> None:
        """Prepares the shutdown: the heartbeat ends, and pool processes hand back training runs. Safe to call from a
        signal handler."""
        self._draining.set()

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():  # a worker may be stopped before it is ready
            self._thread.join(timeout=5)
        self._store.close()

    def child_died(self, task: str, id: str) -> None:
        """A pool process died while it ran this task."""
        for kind in QUEUE_OF:
            if task.endswith(QUEUE_OF[kind]):
                try:
                    self._store.reconciliation.expire_lease(kind, id, self._name)
                except UNAVAILABLE as error:
                    log.warning("lease of %s %s not ended now, it will expire: %s", kind, id, error)

    def _run(self) -> None:
        unavailable = False
        while not self._ended.wait(RECONCILE_S):
            try:
                self._send_heartbeat()
                # After a restart of Redis or a failover, workers need time to renew their leases. (+1: the uptime is
                # rounded down.)
                up = min(self._store.reconciliation.uptime(), time.monotonic() - self._unavailable_at)
                if up >= LEASE_S["episode"] + 1:
                    self._reconcile()
                unavailable = False
            except (*UNAVAILABLE, OperationalError) as error:
                if not unavailable:
                    log.warning("Redis is unavailable: %s", error)
                unavailable = True
                self._unavailable_at = time.monotonic()
            except Exception:
                # This thread requeues the jobs of dead workers: it must not end.
                log.exception("reconciling failed, trying again")

    def _send_heartbeat(self) -> None:
        if self._draining.is_set():
            if not self._removed:
                self._store.workers.drain(self._name, self._settings.drain_seconds + 60)
                self._store.workers.remove(self._queue, self._name)
                self._removed = True
            return
        if time.monotonic() < self._heartbeat_at + HEARTBEAT_S:
            return
        worker = self._ready()
        if worker is None:
            self._store.workers.announce(self._queue, self._name)
        else:
            self._store.workers.heartbeat(worker)
            if self._queue == "adapt":
                self._ask_for_lost_models()
        self._heartbeat_at = time.monotonic()

    def _ask_for_lost_models(self) -> None:
        """Has the shipped model registered again, if it may be among those that Redis has lost: by evicting it, say."""
        lost = self._store.models.lost()
        if lost and (lost != self._lost or time.monotonic() > self._asked_at + ASK_AGAIN_S):
            log.warning("model versions that Redis has lost: %s", ", ".join(version or "all" for version in lost))
            ask_for_shipped(self._celery)
            self._asked_at = time.monotonic()
        self._lost = lost

    def _reconcile(self) -> None:
        for kind in QUEUE_OF:
            for id in self._store.reconciliation.due(kind):
                log.info("sending another wake-up for %s %s", kind, id)
                wake(self._celery, kind, id)
