"""What a worker's parent process does beside feeding its pool: beat, and send the wake-ups that are due."""

import logging
import threading
import time

from celery import Celery
from kombu.exceptions import OperationalError

from app.queue import celery_app, wake
from app.settings import Settings
from app.store.errors import UNAVAILABLE
from app.store.keys import QUEUE_OF
from app.store.records import Queue, WorkerRecord
from app.store.sync_store import LEASE_S, SyncStore

log = logging.getLogger(__name__)
RECONCILE_S = 0.25
# Each time is a write that Redis syncs to the disk.
PRESENT_S = 1.0


class Reconciler:
    """A thread. Every worker runs one for all queues: the scripts let only one of them act on each thing."""

    def __init__(self, settings: Settings, queue: Queue, name: str) -> None:
        self._settings = settings
        self._store = SyncStore.open(settings)
        self._celery: Celery = celery_app(settings)
        self._queue = queue
        self._name = name
        self._worker: WorkerRecord | None = None
        self._ended = threading.Event()
        self._draining = threading.Event()
        self._told = False
        self._present_at = -PRESENT_S
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def drain(self) -> None:
        """The worker is to end: it counts as absent, and its children hand back what takes long. Safe to call from a
        signal handler."""
        self._draining.set()

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():  # a worker may have to end before it was ready
            self._thread.join(timeout=5)
        self._store.close()

    def child_died(self, task: str, id: str) -> None:
        """A pool process was lost while it ran this task."""
        for kind in QUEUE_OF:
            if task.endswith(QUEUE_OF[kind]):
                try:
                    self._store.expire_lease(kind, id, self._name)
                except UNAVAILABLE as error:
                    log.warning("lease of %s %s not ended, it runs out by itself: %s", kind, id, error)

    def _run(self) -> None:
        away = False
        while not self._ended.wait(RECONCILE_S):
            try:
                self._beat()
                # Live workers must get the time of a lease to beat after Redis was away. (+1: uptime is rounded down.)
                if self._store.uptime() >= LEASE_S["episode"] + 1:
                    self._reconcile()
                away = False
            except (*UNAVAILABLE, OperationalError) as error:
                if not away:
                    log.warning("Redis is away: %s", error)
                away = True
            except Exception:
                # This thread is what brings lost work back: it must not end.
                log.exception("reconciling failed, trying again")

    def _beat(self) -> None:
        if self._draining.is_set():
            if not self._told:
                self._store.drain(self._name, self._settings.drain_seconds + 60)
                self._store.absent(self._queue, self._name)
                self._told = True
            return
        if time.monotonic() < self._present_at + PRESENT_S:
            return
        # The first one to tell that this worker is there is its child, once it is warm.
        self._worker = self._store.get_worker(self._queue, self._name) or self._worker
        if self._worker is not None:
            self._store.present(self._worker)
            self._present_at = time.monotonic()

    def _reconcile(self) -> None:
        for kind in QUEUE_OF:
            for id in self._store.due(kind):
                log.info("waking a worker up for %s %s again", kind, id)
                wake(self._celery, kind, id)
        self._store.sweep()
