"""One training run: claim it, train from the last checkpoint, register the model version."""

import logging
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.settings import Settings
from app.store.claims import Claim
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE
from app.store.records import TrainingRecord
from workers.child import Child
from workers.claims import ClaimLostError, LeaseRenewal, report_progress, retrying, run_job
from workers.time_limit import time_limit

if TYPE_CHECKING:
    from lamanas_core.train.loop import TrainingProgress

log = logging.getLogger(__name__)
PROGRESS_S = 0.25
LOSSES_KEPT = 200


def run(child: Child, id: str) -> None:
    """Trains, unless another worker has claimed the run or it has ended."""

    def take() -> Claim | None:
        return child.store.claims.claim("training", id, child.name)

    run_job(child.store, take, lambda claim, lease: _train(child, claim, lease))


def _train(child: Child, claim: Claim, lease: LeaseRenewal) -> None:
    record = claim.record
    assert isinstance(record, TrainingRecord)
    run_dir = child.settings.runs_dir / record.id
    # A process that was suspended may still write a checkpoint, next to its successor's, before it learns that its
    # claim is lost. Checkpoints are replaced atomically, so that either one can be resumed from.
    losses: deque[float] = deque(record.losses, maxlen=LOSSES_KEPT)
    last = record.epoch
    reported_at = 0.0

    def on_progress(progress: "TrainingProgress") -> None:
        nonlocal reported_at, last
        lease.check()
        count_anew()
        if progress.saved:
            _keep(child.store, claim, progress.epoch, run_dir)
        for _ in range(min(len(losses), last - progress.epoch + 1)):
            losses.pop()  # of epochs after the checkpoint, which are repeated
        last = progress.epoch
        if progress.loss is not None:  # None until the first finite gradient
            losses.append(progress.loss)
        now = time.monotonic()
        if now - reported_at >= PROGRESS_S or progress.epoch == progress.epochs:
            reported_at = now
            report_progress(child.store, claim, _progress(progress, losses), epoch=progress.epoch)

    def should_stop() -> bool:
        return lease.status != "valid"

    # Also of what comes before the first epoch and after the last one.
    with time_limit(child.settings.epoch_seconds) as count_anew:
        data = dataset_folder(child.settings, child.store, record.dataset)
        run_dir.mkdir(parents=True, exist_ok=True)
        retrying(lambda: child.store.folders.fetch_checkpoint(record.id, run_dir))
        version, weights, card = child.learner.train(record, data, run_dir, on_progress, should_stop)
    if not retrying(lambda: child.store.claims.commit_training(claim, version, weights, card)):
        raise ClaimLostError(f"training {claim.id}: the claim was no longer valid when the result was ready")
    log.info("training %s finished: model %s", claim.id, version)


def _progress(progress: "TrainingProgress", losses: deque[float]) -> dict[str, Any]:
    return {
        "epoch": progress.epoch,
        "epochs": progress.epochs,
        "loss": progress.loss,
        "losses": list(losses),
        "validation_accuracy": progress.validation_accuracy,
        "warm_up_epochs": progress.warm_up_epochs,
        "seconds": progress.seconds,
        "eta_seconds": progress.eta_seconds,
        "warnings": list(progress.notes),
    }


def _keep(store: SyncStore, claim: Claim, epoch: int, run_dir: Path) -> None:
    """Stores the checkpoint of this epoch for workers on other machines. Should that fail, the next one will do."""
    try:
        store.folders.keep_checkpoint(claim, epoch, run_dir)
    except (*UNAVAILABLE, OSError) as error:
        log.warning("checkpoint of training %s, epoch %d, not stored for other machines: %s", claim.id, epoch, error)


def dataset_folder(settings: Settings, store: SyncStore, name: str) -> Path:
    """The data set's folder: in this machine's data directory, or what is stored by this name, unpacked there. Raises
    ValueError, which lists the available names."""
    folder = settings.datasets_dir / name
    if folder.parent == settings.datasets_dir and name not in {"", ".", ".."}:
        if folder.is_dir():
            return folder
        unpacked = retrying(lambda: store.folders.dataset(name, settings.unpacked_datasets_dir))
        if unpacked is not None:
            return unpacked
    local = settings.datasets_dir.iterdir() if settings.datasets_dir.is_dir() else ()
    known = {path.name for path in local if path.is_dir()} | set(retrying(store.folders.datasets))
    raise ValueError(f"unknown data set {name!r}; available: {', '.join(sorted(known)) or 'none'}")
