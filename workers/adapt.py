"""One episode: claim it, adapt, commit."""

import logging
import time
from typing import TYPE_CHECKING, Any

from app.store.errors import NotFound
from app.store.records import EpisodeRecord
from app.store.sync_store import Claim
from workers.child import Child
from workers.claims import ClaimLostError, Heartbeat, patiently

if TYPE_CHECKING:
    from lamanas_core.learning.adaptation import Adapted

log = logging.getLogger(__name__)
# Each progress is a write that Redis syncs to the disk; steps can be a few milliseconds apart.
PROGRESS_S = 0.05


def run(child: Child, id: str) -> None:
    """Does nothing if somebody else has the episode or it has ended: wake-ups may come twice."""
    claim = patiently(lambda: child.store.claim("episode", id, child.name))
    if claim is None:
        return
    with Heartbeat(child.store, claim) as heartbeat:
        try:
            _adapt(child, claim, heartbeat)
        except ClaimLostError as error:
            log.warning("dropped: %s", error)
        except (ValueError, NotFound) as error:
            # What was sent cannot be adapted to: another try would end the same way.
            log.warning("episode %s failed: %s", id, error)
            reason = str(error)
            patiently(lambda: child.store.fail(claim, reason))
        except Exception as error:
            log.exception("episode %s: attempt %d failed", id, claim.record.attempts)
            reason = f"adapting failed: {type(error).__name__}: {error}"
            patiently(lambda: child.store.retry(claim, reason))


def _adapt(child: Child, claim: Claim, heartbeat: Heartbeat) -> None:
    record = claim.record
    assert isinstance(record, EpisodeRecord)
    support, labels = patiently(lambda: child.store.support(claim))
    losses: list[float] = []
    told = 0.0

    def on_step(step: int, steps: int, loss: float) -> None:
        nonlocal told
        heartbeat.check()
        losses.append(float(loss))
        now = time.monotonic()
        if now - told >= PROGRESS_S:
            told = now
            patiently(lambda: child.store.progress(claim, _progress(losses)))

    patiently(lambda: child.learner.model(record.model_version))
    started = time.perf_counter()
    adapted = child.learner.adapt(record, support, labels, on_step)
    seconds = time.perf_counter() - started
    result = _result(adapted, seconds)
    if not patiently(
        lambda: child.store.commit_episode(claim, _progress(list(adapted.losses)), result, adapted.artifact)
    ):
        raise ClaimLostError(f"episode {claim.id}: the result came too late and was refused")
    log.info("episode %s ready in %.3f s", claim.id, seconds)


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
