"""One episode: claim it, adapt to it, commit the classifier."""

import logging
import time
from contextlib import suppress
from dataclasses import astuple
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from app.store.claims import Claim
from app.store.errors import UNAVAILABLE
from app.store.records import EpisodeRecord
from workers import faults
from workers.child import Child
from workers.claims import ClaimLostError, LeaseRenewal, report_progress, retrying, run_job
from workers.time_limit import time_limit

if TYPE_CHECKING:
    from lamanas_core.adapt.adapted import Adapted

log = logging.getLogger(__name__)
# Each report is a write that Redis syncs to its disk, and steps may be a few milliseconds apart.
PROGRESS_S = 0.05


def run(child: Child, id: str) -> None:
    """Adapts to the episode whose turn it is, if one is queued; ``id`` is the one that the wake-up is for."""

    def take() -> Claim | None:
        return child.store.claims.claim_next(id, child.name)

    run_job(child.store, take, lambda claim, lease: _adapt(child, claim, lease))


def _adapt(child: Child, claim: Claim, lease: LeaseRenewal) -> None:
    record = claim.record
    assert isinstance(record, EpisodeRecord)
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
        progress, result = _progress(list(adapted.losses)), _result(adapted, seconds)
        faults.reach("adapted", claim.id)
        # By itself: while Redis is unavailable, only the commit is repeated.
        classifier = retrying(lambda: child.store.claims.store_classifier(claim, adapted.artifact))
        if not retrying(lambda: child.store.claims.commit_episode(claim, progress, result, classifier)):
            raise ClaimLostError(f"episode {claim.id}: the claim was no longer valid when the result was ready")
    faults.reach("committed", claim.id)
    log.info("episode %s ready in %.3f s", claim.id, seconds)
    each = [end - start for start, end in pairwise([started, *ends])]
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
