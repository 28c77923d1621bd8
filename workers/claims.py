"""Holding a claim: its heartbeat, how the work on it may end, and what to do while Redis is away."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from app.store.errors import UNAVAILABLE, NotFound
from app.store.keys import QUEUE_OF, Kind
from app.store.sync_store import Beat, Claim, SyncStore
from app.telemetry import logs, tracing

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
            except Exception:
                # Without this thread the work would go on beside whoever claims it next.
                log.exception("no beat for %s %s, trying again", self._claim.kind, self._claim.id)


def work_on(store: SyncStore, kind: Kind, id: str, worker: str, work: Callable[[Claim, Heartbeat], None]) -> None:
    """Claims it and does ``work``, which commits. Does nothing if somebody else has it or it has ended: wake-ups may
    come twice. Whatever ``work`` raises ends the claim in the store."""
    claim = patiently(lambda: store.claim(kind, id, worker))
    if claim is None:
        return
    record = claim.record
    with (
        logs.working_on(**{kind: id}, request_id=record.request_id),
        tracing.span(f"lamanas.{QUEUE_OF[kind]}", record.traceparent, **{kind: id}),
        Heartbeat(store, claim) as heartbeat,
    ):
        try:
            work(claim, heartbeat)
        except ClaimLostError as error:
            log.warning("dropped: %s", error)
        except StoppedError:
            _stopped(store, claim, heartbeat)
        except (ValueError, NotFound) as error:
            # What was asked cannot be done: another try would end the same way.
            log.warning("%s %s failed: %s", kind, id, error)
            reason = str(error)
            patiently(lambda: store.fail(claim, reason))
        except Exception as error:
            log.exception("%s %s: attempt %d failed", kind, id, claim.record.attempts)
            reason = f"{type(error).__name__}: {error}"
            patiently(lambda: store.retry(claim, reason))


def _stopped(store: SyncStore, claim: Claim, heartbeat: Heartbeat) -> None:
    if heartbeat.state == "cancel":
        log.info("%s %s cancelled", claim.kind, claim.id)
        patiently(lambda: store.cancelled(claim))
    elif heartbeat.state == "drain":
        log.info("%s %s handed back", claim.kind, claim.id)
        patiently(lambda: store.hand_back(claim))


def tell(store: SyncStore, claim: Claim, fields: dict[str, Any], *, epoch: int = 0) -> None:
    """Writes the progress. Raises ClaimLostError."""
    if not patiently(lambda: store.progress(claim, fields, epoch=epoch)):
        raise ClaimLostError(f"{claim.kind} {claim.id}: its progress was refused")


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
