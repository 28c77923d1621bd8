"""Removes expired episodes, and leftovers once an hour, from a worker's parent process."""

import logging
import threading

from app.settings import Settings
from app.store import leftovers
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE, ForeignObjects

log = logging.getLogger(__name__)
# How often a worker removes expired episodes, and looks whether it is time for leftovers, which one of all removes.
LOOK_S = 10.0


class Sweep:
    """A thread of its own, since deleting from a slow bucket, or listing a large one, takes longer than a heartbeat may
    be late."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = SyncStore.open(settings)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for a sweep that is under way: it may be ended at any point."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._remove_expired()
            self._remove_leftovers()
            self._ended.wait(LOOK_S)

    def _remove_expired(self) -> None:
        try:
            while self._store.reconciliation.sweep() and not self._ended.is_set():
                pass  # some at a time
        except UNAVAILABLE as error:
            log.warning("expired episodes not removed, trying again: %s", error)
        except Exception:
            log.exception("removing expired episodes failed, trying again")

    def _remove_leftovers(self) -> None:
        try:
            if self._store.reconciliation.take_turn():
                for removed in leftovers.remove(self._settings, self._store):
                    log.info("removed %s", removed)
        except ForeignObjects as error:
            log.warning("%s", error)
        except UNAVAILABLE as error:
            log.warning("leftovers not removed, trying again in an hour: %s", error)
        except Exception:
            log.exception("removing leftovers failed, trying again in an hour")
