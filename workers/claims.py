"""Holding a claim: its heartbeat, and what to do while Redis is away."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from app.store.errors import UNAVAILABLE
from app.store.sync_store import Beat, Claim, SyncStore

log = logging.getLogger(__name__)
Result = TypeVar("Result")

BEAT_S = 1.0
# A result is worth waiting for Redis this long; after that the work is done again by whoever claims it.
PATIENCE_S = 60.0
LOOK_AGAIN_S = 0.25


class ClaimLostError(Exception):
    """Somebody else has the claim now, or what it was for is gone: whatever we do is refused."""


class StoppedError(Exception):
    """The work was stopped on the way, as the heartbeat's state asked for."""


class Heartbeat:
    """Renews a claim's lease from a thread while the block runs; ``state`` is what the last beat heard."""

    def __init__(self, store: SyncStore, claim: Claim) -> None:
        self._store = store
        self._claim = claim
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"beat-{claim.id}", daemon=True)
        self.state: Beat = "held"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raises ClaimLostError if work on it is in vain."""
        if self.state == "lost":
            raise ClaimLostError(f"{self._claim.kind} {self._claim.id}, fence {self._claim.fence}")

    def _run(self) -> None:
        while self.state != "lost" and not self._ended.wait(BEAT_S):
            try:
                self.state = self._store.beat(self._claim)
            except UNAVAILABLE as error:
                # The reconciler waits for a restarted Redis as long as a lease lasts: beating on keeps the claim.
                log.warning("no beat for %s %s: %s", self._claim.kind, self._claim.id, error)


def patiently(call: Callable[[], Result], patience_s: float = PATIENCE_S) -> Result:
    """The call's result; while Redis is away it is made again, and its error raised after ``patience_s``."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return call()
        except UNAVAILABLE:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_AGAIN_S)
