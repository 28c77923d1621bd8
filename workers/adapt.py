"""One episode: claim it, adapt, commit."""

import logging
import time
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from app.store.errors import UNAVAILABLE
from app.store.records import EpisodeRecord
from app.store.sync_store import Claim
from workers import faults
from workers.child import Child
from workers.claims import ClaimLostError, Heartbeat, patiently, tell, work_on

if TYPE_CHECKING:
    from lamanas_core.adapt.adapted import Adapted

log = logging.getLogger(__name__)
# Each progress is a write that Redis syncs to the disk; steps can be a few milliseconds apart.
PROGRESS_S = 0.05


def run(child: Child, id: str) -> None:
    """One wake-up: adapts the episode unless there is nothing to do."""
    work_on(child.store, "episode", id, child.name, lambda claim, heartbeat: _adapt(child, claim, heartbeat))


def _adapt(child: Child, claim: Claim, heartbeat: Heartbeat) -> None:
    record = claim.record
    assert isinstance(record, EpisodeRecord)
    support, labels = patiently(lambda: child.store.support(claim))
    waited = max(0.0, time.time() - int(claim.hash.get(b"queued_at", claim.hash[b"created_at"])) / 1000)
    losses: list[float] = []
    ends: list[float] = []
    told = 0.0

    def on_step(step: int, steps: int, loss: float) -> None:
        nonlocal told
        heartbeat.check()
        losses.append(float(loss))
        ends.append(time.perf_counter())
        now = time.monotonic()
        if step < steps and now - told >= PROGRESS_S:  # the last step's is in the commit, right behind it
            told = now
            tell(child.store, claim, _progress(losses))

    patiently(lambda: child.learner.model(record.model_version))
    started = time.perf_counter()
    adapted = child.learner.adapt(record, support, labels, on_step)
    seconds = time.perf_counter() - started
    result = _result(adapted, seconds)
    faults.reach("adapted", claim.id)
    if not patiently(
        lambda: child.store.commit_episode(claim, _progress(list(adapted.losses)), result, adapted.artifact)
    ):
        raise ClaimLostError(f"episode {claim.id}: the result came too late and was refused")
    faults.reach("committed", claim.id)
    log.info("episode %s ready in %.3f s", claim.id, seconds)
    each = [end - start for start, end in pairwise([started, *ends])]
    with suppress(*UNAVAILABLE):  # the episode is safe, its figures are not worth waiting for
        child.store.observe({"queue_wait": [waited], "adapt_step": each, "adapt": [seconds]})


def _progress(losses: list[float]) -> dict[str, Any]:
    return {"step": len(losses), "losses": losses}


def _result(adapted: "Adapted", seconds: float) -> dict[str, Any]:
    return {
        "genotype": adapted.genotype.to_json(),
        "parameters_kept": adapted.parameters_kept,
        "parameters_total": adapted.parameters_total,
        "support_accuracy": adapted.support_accuracy,
        "leave_one_out_accuracy": adapted.leave_one_out_accuracy,
        "warnings": list(adapted.warnings),
        "adapt_seconds": seconds,
    }
