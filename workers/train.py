"""One training run: claim it, train from its last checkpoint on, register the model."""

import logging
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from app.store.records import TrainingRecord
from app.store.sync_store import Claim
from workers.child import Child
from workers.claims import ClaimLostError, Heartbeat, StoppedError, patiently

if TYPE_CHECKING:
    from lamanas_core.learning.training import TrainingProgress

log = logging.getLogger(__name__)
PROGRESS_S = 0.25
LOSSES_KEPT = 200


def run(child: Child, id: str) -> None:
    """Does nothing if somebody else has the run or it has ended: wake-ups may come twice."""
    claim = patiently(lambda: child.store.claim("training", id, child.name))
    if claim is None:
        return
    with Heartbeat(child.store, claim) as heartbeat:
        try:
            _train(child, claim, heartbeat)
        except ClaimLostError as error:
            log.warning("dropped: %s", error)
        except StoppedError:
            _stopped(child, claim, heartbeat)
        except ValueError as error:
            log.warning("training %s failed: %s", id, error)
            reason = str(error)
            patiently(lambda: child.store.fail(claim, reason))
        except Exception as error:
            log.exception("training %s: attempt %d failed", id, claim.record.attempts)
            reason = f"training failed: {type(error).__name__}: {error}"
            patiently(lambda: child.store.retry(claim, reason))


def _stopped(child: Child, claim: Claim, heartbeat: Heartbeat) -> None:
    if heartbeat.state == "cancel":
        log.info("training %s cancelled", claim.id)
        patiently(lambda: child.store.cancelled(claim))
    elif heartbeat.state == "drain":
        log.info("training %s handed back", claim.id)
        patiently(lambda: child.store.hand_back(claim))


def _train(child: Child, claim: Claim, heartbeat: Heartbeat) -> None:
    record = claim.record
    assert isinstance(record, TrainingRecord)
    data = dataset_folder(child.settings.datasets_dir, record.dataset)
    run_dir = child.settings.runs_dir / record.id
    run_dir.mkdir(parents=True, exist_ok=True)
    # A stopped process that wakes up late may still write a checkpoint beside its successor's before it hears that its
    # claim is lost. Checkpoints replace each other whole, so either is one to resume from.
    losses: deque[float] = deque(record.losses, maxlen=LOSSES_KEPT)
    told = 0.0

    def on_progress(progress: "TrainingProgress") -> None:
        nonlocal told
        heartbeat.check()
        losses.append(float(progress.loss))
        now = time.monotonic()
        if now - told >= PROGRESS_S or progress.epoch == progress.epochs:
            told = now
            fields = _progress(progress, losses)
            patiently(lambda: child.store.progress(claim, fields, epoch=progress.epoch))

    version, weights, card = child.learner.train(record, data, run_dir, on_progress, lambda: heartbeat.state != "held")
    if not patiently(lambda: child.store.commit_training(claim, version, weights, card)):
        raise ClaimLostError(f"training {claim.id}: the result came too late and was refused")
    log.info("training %s finished: model %s", claim.id, version)


def _progress(progress: "TrainingProgress", losses: deque[float]) -> dict[str, object]:
    return {
        "epoch": progress.epoch,
        "epochs": progress.epochs,
        "loss": float(progress.loss),
        "losses": list(losses),
        "validation_accuracy": progress.validation_accuracy,
        "eta_seconds": progress.eta_seconds,
    }


def dataset_folder(datasets: Path, name: str) -> Path:
    """The folder of this name among the operator's data sets. Raises ValueError, with the names there are."""
    folder = datasets / name
    if folder.parent != datasets or name in {"", ".", ".."} or not folder.is_dir():
        known = sorted(path.name for path in datasets.iterdir() if path.is_dir()) if datasets.is_dir() else []
        raise ValueError(f"there is no data set {name!r} in {datasets}; there is: {', '.join(known) or 'none'}")
    return folder
