"""What the store keeps, as plain immutable data. Times are seconds since 1970 (UTC)."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

EpisodeState = Literal["queued", "adapting", "ready", "failed"]
TrainingState = Literal["queued", "running", "finished", "failed", "cancelled"]
Scope = Literal["predict", "episodes", "admin"]
Queue = Literal["adapt", "train"]

SCOPES: frozenset[Scope] = frozenset({"predict", "episodes", "admin"})
EPISODE_ENDS: frozenset[str] = frozenset({"ready", "failed"})
TRAINING_ENDS: frozenset[str] = frozenset({"finished", "failed", "cancelled"})


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode: what was asked (classes in the order of their label numbers), how far it is, what came out."""

    id: str
    owner: str
    name: str | None
    state: EpisodeState
    classes: tuple[str, ...]
    shots: tuple[int, ...]
    steps: int
    seed: int
    model_version: str
    created_at: float
    expires_at: float
    step: int = 0
    losses: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()
    genotype: dict[str, Any] | None = None
    parameters_kept: int | None = None
    parameters_total: int | None = None
    support_accuracy: float | None = None
    leave_one_out_accuracy: float | None = None
    adapt_seconds: float | None = None
    error: str | None = None
    attempts: int = 0
    parent: str | None = None
    request_id: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """One meta-training run. ``losses`` holds the last ones only."""

    id: str
    owner: str
    dataset: str
    state: TrainingState
    created_at: float
    options: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    losses: tuple[float, ...] = ()
    validation_accuracy: float | None = None
    eta_seconds: float | None = None
    model_version: str | None = None
    error: str | None = None
    attempts: int = 0
    request_id: str | None = None
    traceparent: str | None = None
    cancelling: bool = False


@dataclass(frozen=True)
class ModelRecord:
    """One registered meta-model version; ``card`` is its model card."""

    version: str
    card: dict[str, Any]
    active: bool
    created_at: float


@dataclass(frozen=True)
class KeyRecord:
    """One API key; of its token only the SHA-256 is kept. Keys of one tenant share their episodes."""

    id: str
    name: str
    tenant: str
    scopes: frozenset[Scope]
    created_at: float
    revoked: bool = False


@dataclass(frozen=True)
class WorkerRecord:
    """One live worker process group: its queue, its name, the device it computes on, when it started."""

    queue: Queue
    name: str
    device: str
    started_at: float

    @classmethod
    def now(cls, queue: Queue, name: str, device: str) -> "WorkerRecord":
        return cls(queue, name, device, time.time())
