"""Deletes what nobody names in the object store, from a worker's parent process: what processes left that were killed
between storing bytes and naming them, or between forgetting a name and deleting its bytes."""

import logging
import threading

from app.settings import Settings
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE

log = logging.getLogger(__name__)
# How often a worker looks whether a sweep is due; one of all workers then makes it.
LOOK_S = 60.0


class ObjectSweep:
    """A thread of its own, since listing a large bucket takes longer than a heartbeat may be late."""

    def __init__(self, settings: Settings) -> None:
        self._store = SyncStore.open(settings)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="object-sweep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for a sweep that is under way: it may be ended at any point."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                deleted = self._store.reconciliation.sweep_objects()
            except UNAVAILABLE as error:
                log.warning("sweep of the object store not finished: %s", error)
            except Exception:
                log.exception("sweep of the object store failed, trying again")
            else:
                if deleted:
                    log.info("deleted %d objects that nobody names", deleted)
