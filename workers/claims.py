"""Works on a claimed job: renews its lease meanwhile, and always ends the claim in the store."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from app.store.claims import Claim, LeaseStatus
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE, NotFound
from app.store.keys import QUEUE_OF
from app.telemetry import logs, tracing

log = logging.getLogger(__name__)
Result = TypeVar("Result")

RENEW_S = 1.0
# How long calls are retried while Redis is unavailable; after that, the next worker with a claim repeats the work.
RETRY_FOR_S = 60.0
RETRY_EVERY_S = 0.25
UNEXPECTED = "an unexpected error occurred in the worker and was logged"


class ClaimLostError(Exception):
    """Another worker has claimed the job, or it is gone: the store refuses all further writes of this worker."""


class StoppedError(Exception):
    """The work was stopped before its end, because the job was cancelled or the worker is shutting down."""


class LeaseRenewal:
    """Renews a claim's lease in a thread while the block runs; ``status`` is the store's last answer."""

    def __init__(self, store: SyncStore, claim: Claim) -> None:
        self._store = store
        self._claim = claim
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease-{claim.id}", daemon=True)
        self.status: LeaseStatus = "valid"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raises ClaimLostError if the result would be refused."""
        if self.status == "lost":
            raise ClaimLostError(f"{self._claim.kind} {self._claim.id}, fence {self._claim.fence}")

    def _run(self) -> None:
        while self.status != "lost" and not self._ended.wait(RENEW_S):
            try:
                self.status = self._store.claims.renew(self._claim)
            except UNAVAILABLE as error:
                # After a restart of Redis, the reconciler waits for the duration of a lease: a renewal keeps the claim.
                log.warning("lease of %s %s not renewed: %s", self._claim.kind, self._claim.id, error)
            except Exception:
                # Without this thread, the work would continue while another worker claims the same job.
                log.exception("lease of %s %s not renewed, trying again", self._claim.kind, self._claim.id)


def run_job(store: SyncStore, take: Callable[[], Claim | None], work: Callable[[Claim, LeaseRenewal], None]) -> None:
    """Claims a job by ``take`` and calls ``work``, which commits the result. Does nothing if there is none, since
    wake-ups may come twice. If ``work`` raises, the claim is ended in the store."""
    claim = retrying(take)
    if claim is None:
        return
    kind, id, record = claim.kind, claim.id, claim.record
    with (
        logs.with_fields(**{kind: id}, request_id=record.request_id),
        tracing.span(f"lamanas.{QUEUE_OF[kind]}", record.traceparent, **{kind: id}),
        LeaseRenewal(store, claim) as lease,
    ):
        try:
            work(claim, lease)
        except ClaimLostError as error:
            log.warning("claim lost: %s", error)
        except StoppedError:
            _release_stopped(store, claim, lease)
        except (ValueError, NotFound) as error:
            # The request cannot be fulfilled: another attempt would end in the same way.
            log.warning("%s %s failed: %s", kind, id, error)
            reason = str(error)
            retrying(lambda: store.claims.fail(claim, reason))
        except Exception:
            # Its text is for the operator: it may name files, devices and addresses.
            log.exception("%s %s: attempt %d failed", kind, id, claim.record.attempts)
            retrying(lambda: store.claims.retry(claim, UNEXPECTED))


def _release_stopped(store: SyncStore, claim: Claim, lease: LeaseRenewal) -> None:
    if lease.status == "cancel":
        log.info("%s %s cancelled", claim.kind, claim.id)
        retrying(lambda: store.claims.cancelled(claim))
    elif lease.status == "drain":
        log.info("%s %s handed back", claim.kind, claim.id)
        retrying(lambda: store.claims.hand_back(claim))


def report_progress(store: SyncStore, claim: Claim, fields: dict[str, Any], *, epoch: int = 0) -> None:
    """Stores the progress. Raises ClaimLostError."""
    if not retrying(lambda: store.claims.report_progress(claim, fields, epoch=epoch)):
        raise ClaimLostError(f"{claim.kind} {claim.id}: the store refused its progress")


def retrying(call: Callable[[], Result], seconds: float = RETRY_FOR_S) -> Result:
    """The call's result. While Redis is unavailable, the call is repeated; after ``seconds`` its error is raised."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except UNAVAILABLE:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_EVERY_S)
