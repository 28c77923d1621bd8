"""Episodes: claim one, or several of equal shape, adapt to them, commit the classifiers."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import astuple
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from app.store.claims import Claim
from app.store.errors import UNAVAILABLE, NotFound
from app.store.records import EpisodeRecord
from app.telemetry import logs, tracing
from workers import faults
from workers.child import Child
from workers.claims import UNEXPECTED, ClaimLostError, LeaseRenewal, report_progress, retrying, run_job
from workers.time_limit import time_limit

if TYPE_CHECKING:
    from lamanas_core.adapt.adapted import Adapted

log = logging.getLogger(__name__)
# Each report is a write that Redis syncs to its disk, and steps may be a few milliseconds apart.
PROGRESS_S = 0.05


class BatchFailedError(Exception):
    """Several episodes could not be adapted together, whichever of them it was due to. Each is attempted alone."""


def run(child: Child, id: str) -> None:
    """Adapts to the episode whose turn it is, if one is queued, and to those that are like it, if this worker adapts
    several together; ``id`` is the one that the wake-up is for."""

    def take() -> Claim | None:
        return child.store.claims.claim_next(id, child.name)

    def work(claim: Claim, lease: LeaseRenewal) -> None:
        others = _others_like(child, claim, id)
        if others:
            _adapt_together(child, claim, lease, others)
        else:
            _adapt(child, claim, lease)

    run_job(child.store, take, work)


def _others_like(child: Child, claim: Claim, woken_by: str) -> list[Claim]:
    """Claims on the episodes to be adapted together with this one."""
    with time_limit(child.settings.adapt_seconds):
        most = retrying(lambda: child.learner.most_together(_record(claim)))
    if most > 1:
        with suppress(*UNAVAILABLE):  # those that it may have claimed go back into the queue
            return child.store.claims.claim_alike(claim, most - 1, woken_by)
    return []


def _record(claim: Claim) -> EpisodeRecord:
    assert isinstance(claim.record, EpisodeRecord)
    return claim.record


def _adapt(child: Child, claim: Claim, lease: LeaseRenewal) -> None:
    record = _record(claim)
    losses: list[float] = []
    ends: list[float] = []
    reported_at = 0.0

    def on_step(step: int, steps: int, loss: float) -> None:
        nonlocal reported_at
        lease.check()
        losses.append(float(loss))
        ends.append(time.perf_counter())
        now = time.monotonic()
        if step < steps and now - reported_at >= PROGRESS_S:  # the commit reports the last step
            reported_at = now
            report_progress(child.store, claim, _progress(losses))

    with time_limit(child.settings.adapt_seconds):
        support, labels = retrying(lambda: child.store.claims.support(claim))
        retrying(lambda: child.learner.model(record.model_version))
        started = time.perf_counter()
        adapted = child.learner.adapt(record, support, labels, on_step)
        seconds = time.perf_counter() - started
        _commit(child, claim, adapted, seconds)
    _finish(child, claim, [started, *ends], seconds)


def _adapt_together(child: Child, first: Claim, lease: LeaseRenewal, others: Sequence[Claim]) -> None:
    """Each episode has its own claim, which can be lost without the others. Raises BatchFailedError."""
    with ExitStack() as stack:
        leases = {first.id: lease}
        for claim in others:
            stack.enter_context(tracing.span("lamanas.adapt", claim.record.traceparent, episode=claim.id))
            leases[claim.id] = stack.enter_context(LeaseRenewal(child.store, claim))
        try:
            _work_on_all(child, [first, *others], leases)
        except Exception as error:
            for claim in others:  # nothing happens to those that have ended
                retrying(partial(child.store.claims.retry, claim, UNEXPECTED))
            raise BatchFailedError(f"{len(leases)} episodes are not adapted together, but each alone") from error


def _work_on_all(child: Child, claims: Sequence[Claim], leases: dict[str, LeaseRenewal]) -> None:
    losses: list[list[float]] = []  # of each step, those of all episodes
    ends: list[float] = []
    reported_at = 0.0

    def on_step(step: int, steps: int, of_all: list[float]) -> None:
        nonlocal reported_at
        losses.append(of_all)
        ends.append(time.perf_counter())
        now = time.monotonic()
        if step < steps and now - reported_at >= PROGRESS_S:
            reported_at = now
            for number, claim in enumerate(found):
                if leases[claim.id].status != "lost":
                    with suppress(ClaimLostError):
                        report_progress(child.store, claim, _progress([each[number] for each in losses]))

    with time_limit(child.settings.adapt_seconds) as count_anew:
        found, supports = _with_supports(child, claims)
        if not found:
            return
        retrying(lambda: child.learner.model(_record(found[0]).model_version))
        started = time.perf_counter()
        results = child.learner.adapt_together([_record(claim) for claim in found], supports, on_step)
        for claim, adapted in zip(found, results, strict=True):
            seconds = time.perf_counter() - started
            count_anew()
            with logs.with_fields(episode=claim.id, request_id=claim.record.request_id):
                try:
                    leases[claim.id].check()
                    _commit(child, claim, adapted, seconds)
                except ClaimLostError as error:
                    log.warning("claim lost: %s", error)
                    continue
                _finish(child, claim, [started, *ends], seconds)


def _with_supports(child: Child, claims: Sequence[Claim]) -> tuple[list[Claim], list[tuple[np.ndarray, np.ndarray]]]:
    """The claims on episodes whose support sets there are, and these; the other episodes have failed."""
    found, supports = [], []
    for claim in claims:
        try:
            supports.append(retrying(partial(child.store.claims.support, claim)))
            found.append(claim)
        except NotFound as error:
            retrying(partial(child.store.claims.fail, claim, str(error)))
    return found, supports


def _commit(child: Child, claim: Claim, adapted: "Adapted", seconds: float) -> None:
    """Raises ClaimLostError."""
    progress, result = _progress(list(adapted.losses)), _result(adapted, seconds)
    faults.reach("adapted", claim.id)
    # By itself: while Redis is unavailable, only the commit is repeated.
    classifier = retrying(lambda: child.store.claims.store_classifier(claim, adapted.artifact))
    if not retrying(lambda: child.store.claims.commit_episode(claim, progress, result, classifier)):
        raise ClaimLostError(f"episode {claim.id}: the claim was no longer valid when the result was ready")


def _finish(child: Child, claim: Claim, marks: Sequence[float], seconds: float) -> None:
    """After the commit. ``marks``: when the first step began, and when each step ended."""
    faults.reach("committed", claim.id)
    log.info("episode %s ready in %.3f s", claim.id, seconds)
    each = [end - start for start, end in pairwise(marks)]
    with suppress(*UNAVAILABLE):  # the episode is stored; its measurements are not worth a retry
        child.store.workers.add_measurements({"queue_wait": [claim.waited_s], "adapt_step": each, "adapt": [seconds]})


def _progress(losses: list[float]) -> dict[str, Any]:
    return {"step": len(losses), "losses": losses}


def _result(adapted: "Adapted", seconds: float) -> dict[str, Any]:
    return {
        "genotype": adapted.genotype.to_json(),
        "parameters_kept": adapted.parameters_kept,
        "parameters_total": adapted.parameters_total,
        "support_accuracy": adapted.support_accuracy,
        "leave_one_out_accuracy": adapted.leave_one_out_accuracy,
        "unlabelled_belonging": adapted.unlabelled_belonging,
        "suspects": [astuple(suspect) for suspect in adapted.suspects],
        "warnings": list(adapted.warnings),
        "adapt_seconds": seconds,
    }
