"""What the store keeps, as plain immutable data, and how it is read from Redis: a job's hash has three JSON fields (the
request, the progress, and, compressed, the result) and a few plain ones. Times are seconds since 1970 (UTC)."""

import json
import math
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np

from lamanas_core.image_spec import UNLABELLED, ImageKind, ImageSpec
from lamanas_core.images import UInt8Array

EpisodeState = Literal["queued", "adapting", "ready", "failed"]
TrainingState = Literal["queued", "running", "finished", "failed", "cancelled"]
Scope = Literal["predict", "episodes", "metrics", "admin"]
Queue = Literal["adapt", "train"]

SCOPES: frozenset[Scope] = frozenset({"predict", "episodes", "metrics", "admin"})
Hash = Mapping[bytes, bytes]
EPISODE_ENDS: frozenset[str] = frozenset({"ready", "failed"})
TRAINING_ENDS: frozenset[str] = frozenset({"finished", "failed", "cancelled"})
_EPISODE_TUPLES = ("classes", "shots", "losses", "notes", "warnings", "suspects")


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode: what was asked for (classes in the order of their label numbers), the progress, the result.

    ``model_reason``: why this model, in words, and ``model_warning``: that it does not suit the images; both None for
    episodes from before there were kinds. ``notes``: what there was to be told when the images were read. ``suspects``:
    of each its row in the support set, its label, the likelier label, and how many times likelier. ``unlabelled``: the
    number of images without a label. ``ahead``: how many episodes wait before this one; None unless it waits, and where
    nobody asked.
    """

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
    model_kind: ImageKind | None = None
    model_reason: str | None = None
    model_warning: str | None = None
    unlabelled: int = 0
    ahead: int | None = None
    step: int = 0
    losses: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    genotype: dict[str, Any] | None = None
    parameters_kept: int | None = None
    parameters_total: int | None = None
    support_accuracy: float | None = None
    leave_one_out_accuracy: float | None = None
    unlabelled_belonging: float | None = None
    suspects: tuple[tuple[int, int, int, float], ...] = ()
    adapt_seconds: float | None = None
    error: str | None = None
    attempts: int = 0
    parent: str | None = None
    request_id: str | None = None
    traceparent: str | None = None

    @classmethod
    def from_hash(cls, hash: Hash) -> Self:
        """From its hash in Redis; ``ahead`` is added to that where it is asked for."""
        fields = _job_fields(hash) | {"expires_at": int(hash[b"expires_at"]) / 1000}
        for name in _EPISODE_TUPLES:
            if name in fields:
                fields[name] = tuple(fields[name])
        fields["unlabelled"] = fields.pop("labels", []).count(UNLABELLED)
        if b"ahead" in hash:
            fields["ahead"] = int(hash[b"ahead"])
        return cls(**fields)


@dataclass(frozen=True)
class TrainingRecord:
    """One meta-training run. ``losses`` holds the last ones only; ``warnings``: how the data set was read."""

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
    warnings: tuple[str, ...] = ()
    validation_accuracy: float | None = None
    warm_up_epochs: int = 0
    seconds: float | None = None
    eta_seconds: float | None = None
    model_version: str | None = None
    error: str | None = None
    attempts: int = 0
    request_id: str | None = None
    traceparent: str | None = None
    cancelling: bool = False

    @classmethod
    def from_hash(cls, hash: Hash) -> Self:
        """From its hash in Redis."""
        fields = _job_fields(hash)
        for name in ("losses", "warnings"):
            if name in fields:
                fields[name] = tuple(fields[name])
        return cls(**fields, cancelling=hash.get(b"cancel") == b"1")


@dataclass(frozen=True)
class ModelRecord:
    """One registered meta-model version; ``card`` is its model card. ``active``: the active one of its kind."""

    version: str
    card: dict[str, Any]
    active: bool
    created_at: float

    @classmethod
    def from_fields(cls, version: str, card: bytes, created_at: bytes, active: Iterable[str]) -> Self:
        """From fields of its hash in Redis; ``active`` are the active versions."""
        return cls(version, json.loads(card), version in active, int(created_at) / 1000)

    @property
    def image(self) -> ImageSpec:
        """The images that it takes."""
        return image_of(self.card)

    @property
    def kind(self) -> ImageKind:
        return self.image.kind


@dataclass(frozen=True)
class KeyRecord:
    """One API key; of its token only the SHA-256 is stored. Keys of one tenant share their episodes."""

    id: str
    name: str
    tenant: str
    scopes: frozenset[Scope]
    created_at: float
    revoked: bool = False
    revoked_at: float | None = None  # also None for keys that were revoked by earlier versions

    @classmethod
    def from_hash(cls, id: str, hash: Hash) -> Self:
        """From its hash in Redis."""
        return cls(
            id=id,
            name=hash[b"name"].decode(),
            tenant=hash.get(b"tenant", id.encode()).decode(),  # keys from before there were tenants have none
            scopes=frozenset(json.loads(hash[b"scopes"])),
            created_at=int(hash[b"created_at"]) / 1000,
            revoked=hash.get(b"revoked") == b"1",
            revoked_at=int(hash[b"revoked_at"]) / 1000 if b"revoked_at" in hash else None,
        )


@dataclass(frozen=True)
class WorkerRecord:
    """One worker, a parent and its pool processes: its queue, its name, the device it computes on, when it started."""

    queue: Queue
    name: str
    device: str
    started_at: float

    @classmethod
    def now(cls, queue: Queue, name: str, device: str) -> Self:
        return cls(queue, name, device, time.time())


def episode_labels(hash: Hash) -> list[int]:
    """The label number of each support image, in the order of the images; UNLABELLED for one without a label."""
    return list(json.loads(hash[b"spec"])["labels"])


def support_to_bytes(support: UInt8Array) -> bytes:
    """A support set as it is stored: compressed, if that makes it smaller."""
    raw = np.ascontiguousarray(support).tobytes()
    # Drawings become 7 times smaller in 0.01 ms each. Photos of 224 x 224 become 1.4 times smaller in 4 ms each; higher
    # levels take longer and gain nothing.
    return min(zlib.compress(raw, 1), raw, key=len)


def support_from_bytes(data: bytes, shape: Sequence[int]) -> UInt8Array:
    """The inverse of ``support_to_bytes``, also of support sets that were stored before they were compressed."""
    raw = data if len(data) == math.prod(shape) else zlib.decompress(data)
    return np.frombuffer(raw, np.uint8).reshape(shape)


def image_of(card: Mapping[str, Any]) -> ImageSpec:
    """The images that the meta-model with this card takes."""
    return ImageSpec(**card["config"]["image"])


def to_json(value: Any) -> str:
    """As it is stored. Raises ValueError for a float that JSON does not have."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def hash_of(flat: Sequence[bytes]) -> Hash:
    """A hash as a script returns it: each name and its value."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def result_to_bytes(result: Mapping[str, Any]) -> bytes:
    """A job's result as it is stored: as JSON, and compressed, since that of an episode contains a genotype of
    kilobytes."""
    return zlib.compress(to_json(result).encode())


def text(value: bytes | None) -> str | None:
    """A stored text; None where there is none."""
    return None if value is None else value.decode()


def _result(stored: bytes) -> dict[str, Any]:
    # Earlier versions did not compress it.
    return dict(json.loads(stored if stored.startswith(b"{") else zlib.decompress(stored)))


def _job_fields(hash: Hash) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for part in (b"spec", b"progress"):
        fields |= json.loads(hash.get(part) or b"{}")
    fields |= _result(hash.get(b"result") or b"{}")
    fields["state"] = hash[b"state"].decode()
    fields["attempts"] = int(hash.get(b"attempts", 0))
    fields["error"] = hash[b"error"].decode() if hash.get(b"error") else None
    fields["created_at"] = int(hash[b"created_at"]) / 1000
    return fields
