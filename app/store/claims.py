"""Claims: how a worker takes a job, keeps it by renewing its lease, and ends it."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from redis import Redis

from app.store import keys
from app.store.errors import NotFound
from app.store.keys import Kind
from app.store.objects import Objects, classifier_name, delete_dropped, name_in
from app.store.records import (
    EpisodeRecord,
    Hash,
    TrainingRecord,
    episode_labels,
    hash_of,
    image_of,
    result_to_bytes,
    support_from_bytes,
    to_json,
)
from app.store.registry import run, script

# A client waits for an episode. Nobody waits for a training run by the second, and it shares its core with other
# processes: a machine that is busy for some seconds must not make it start again.
LEASE_S: dict[Kind, float] = {"episode": 3.0, "training": 15.0}
MAX_ATTEMPTS = 3
_RUNNING_STATE: dict[Kind, str] = {"episode": "adapting", "training": "running"}
_CLAIM = script("claim")
_CLAIM_NEXT = script("claim_next")
_CLAIM_ALIKE = script("claim_alike")
_RENEW = script("renew_lease")
_PROGRESS = script("report_progress")
_COMMIT_EPISODE = script("commit_episode")
_COMMIT_TRAINING = script("commit_training")
_RELEASE = script("release_claim")

LeaseStatus = Literal["valid", "lost", "cancel", "drain"]


@dataclass(frozen=True)
class Claim:
    """The right to work on one job, as long as its lease is renewed and no later claim has a higher fence."""

    kind: Kind
    id: str
    fence: int
    worker: str
    record: EpisodeRecord | TrainingRecord
    hash: Hash

    @property
    def running_state(self) -> str:
        return _RUNNING_STATE[self.kind]

    @property
    def waited_s(self) -> float:
        """How long the job was queued, by the clock of Redis alone."""
        return (int(self.hash[b"claimed_at"]) - int(self.hash.get(b"queued_at", self.hash[b"created_at"]))) / 1000


@dataclass(frozen=True)
class StoredClassifier:
    """A classifier in the object store: its name, and its size in bytes."""

    name: str
    size: int


class Claims:
    """What a worker does with a job. Blocking; every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: Redis, objects: Objects, max_object_bytes: int) -> None:
        # redis-py types every reply as bytes or str; ours are bytes, since nothing is decoded.
        self._redis: Any = redis
        self._objects = objects
        self._max_object_bytes = max_object_bytes

    def claim(self, kind: Kind, id: str, worker: str) -> Claim | None:
        """None if there is nothing to do: another worker has claimed it, or it has ended, was deleted or expired."""
        call = _CLAIM(
            record=keys.record(kind, id),
            queued=keys.queued(kind),
            leases=keys.leases(kind),
            kind=kind,
            id=id,
            running_state=_RUNNING_STATE[kind],
            worker=worker,
            lease_ms=int(LEASE_S[kind] * 1000),
        )
        return _claimed(kind, worker, run(self._redis, call))

    def claim_next(self, woken_by: str, worker: str) -> Claim | None:
        """The episode whose owner's turn it is, whichever one the wake-up names; None if none is queued."""
        call = _CLAIM_NEXT(
            queued=keys.queued("episode"),
            leases=keys.leases("episode"),
            turns=keys.TURNS,
            woken_by=woken_by,
            worker=worker,
            lease_ms=int(LEASE_S["episode"] * 1000),
        )
        return _claimed("episode", worker, run(self._redis, call))

    def claim_alike(self, first: Claim, most: int, woken_by: str) -> list[Claim]:
        """Up to ``most`` further episodes to be adapted together with ``first``: those whose turn it is next, as long
        as they have the same model and numbers of images, classes and steps. Episodes that were attempted before, or
        have images without a label, are adapted alone."""
        call = _CLAIM_ALIKE(
            record=keys.record("episode", first.id),
            queued=keys.queued("episode"),
            leases=keys.leases("episode"),
            turns=keys.TURNS,
            id=first.id,
            fence=first.fence,
            most=most,
            woken_by=woken_by,
            worker=first.worker,
            lease_ms=int(LEASE_S["episode"] * 1000),
        )
        claims = (_claimed("episode", first.worker, flat) for flat in run(self._redis, call))
        return [claim for claim in claims if claim is not None]

    def renew(self, claim: Claim) -> LeaseStatus:
        """Renews the lease. ``lost``: another worker has claimed the job, or it is gone; ``cancel``: the user wants it
        to stop; ``drain``: this worker is shutting down."""
        call = _RENEW(
            record=keys.record(claim.kind, claim.id),
            leases=keys.leases(claim.kind),
            draining=keys.draining(claim.worker),
            id=claim.id,
            running_state=claim.running_state,
            fence=claim.fence,
            lease_ms=int(LEASE_S[claim.kind] * 1000),
        )
        status: LeaseStatus = run(self._redis, call).decode()
        return status

    def report_progress(self, claim: Claim, fields: dict[str, Any], *, epoch: int = 0) -> bool:
        """Replaces the record's progress fields; False if the claim is no longer valid."""
        call = _PROGRESS(
            record=keys.record(claim.kind, claim.id),
            kind=claim.kind,
            id=claim.id,
            running_state=claim.running_state,
            fence=claim.fence,
            progress=to_json(fields),
            epoch=epoch,
        )
        return bool(run(self._redis, call))

    def store_classifier(self, claim: Claim, artifact: bytes) -> StoredClassifier:
        """Stores the classifier, which nothing names yet."""
        name = classifier_name(claim.id, claim.fence, artifact)
        self._objects.put(name, artifact)
        return StoredClassifier(name, len(artifact))

    def commit_episode(
        self, claim: Claim, progress: dict[str, Any], result: dict[str, Any], classifier: StoredClassifier
    ) -> bool:
        """Names the classifier and ends the episode at once; False, and nothing is named, if the claim is no longer
        valid. Calling it again with the same arguments changes nothing."""
        call = _COMMIT_EPISODE(
            record=keys.record("episode", claim.id),
            leases=keys.leases("episode"),
            id=claim.id,
            fence=claim.fence,
            progress=to_json(progress),
            result=result_to_bytes(result),
            classifier=classifier.name,
            bytes=classifier.size,
            max_object_bytes=self._max_object_bytes,
        )
        dropped: list[bytes] | None = run(self._redis, call)
        delete_dropped(self._objects, [classifier.name.encode()] if dropped is None else dropped)
        return dropped is not None

    def commit_training(self, claim: Claim, version: str, weights: bytes, card: dict[str, Any]) -> bool:
        """Registers the new model version and ends the run at once; False, and nothing is stored, if the claim is no
        longer valid."""
        call = _COMMIT_TRAINING(
            model=keys.model(version),
            models=keys.MODELS,
            active=keys.ACTIVE_MODELS,
            record=keys.record("training", claim.id),
            leases=keys.leases("training"),
            checkpoints=keys.CHECKPOINTS,
            version=version,
            kind=image_of(card).kind,
            weights=weights,
            card=to_json(card),
            id=claim.id,
            fence=claim.fence,
            result=result_to_bytes({"model_version": version}),
        )
        dropped: bytes | None = run(self._redis, call)
        delete_dropped(self._objects, [dropped] if dropped else [])
        return dropped is not None

    def fail(self, claim: Claim, error: str) -> bool:
        """The job fails at once: another attempt would end in the same way."""
        return self._release(claim, "failed", error)

    def retry(self, claim: Claim, error: str) -> bool:
        """The job is attempted again, or fails with ``error`` after the last attempt."""
        return self._release(claim, "retry", error)

    def cancelled(self, claim: Claim) -> bool:
        """The work was stopped because the user cancelled it."""
        return self._release(claim, "cancelled", "")

    def hand_back(self, claim: Claim) -> bool:
        """The job goes back into the queue and the attempt is not counted: this worker is shutting down."""
        return self._release(claim, "hand-back", "")

    def support(self, claim: Claim) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, channels, height, width) and int64 (n,). Raises NotFound if the episode was deleted meanwhile, or
        its images are not where they should be."""
        entry: bytes | None = self._redis.hget(keys.SUPPORT_SETS, claim.id)
        if entry is None:
            raise NotFound(f"episode {claim.id} was deleted")
        data = self._objects.get(name_in(entry))
        if data is None:
            raise NotFound(
                f"the images of episode {claim.id} are not in the object store; it must be the same for the app and "
                "all workers (LAMANAS_OBJECTS)"
            )
        shape = json.loads(claim.hash[b"shape"])
        labels = np.asarray(episode_labels(claim.hash), dtype=np.int64)
        # Copied, since an array made from bytes is read-only and torch warns of that.
        return support_from_bytes(data, shape).copy(), labels

    def _release(self, claim: Claim, outcome: str, reason: str) -> bool:
        call = _RELEASE(
            record=keys.record(claim.kind, claim.id),
            queued=keys.queued(claim.kind),
            leases=keys.leases(claim.kind),
            kind=claim.kind,
            id=claim.id,
            running_state=claim.running_state,
            fence=claim.fence,
            outcome=outcome,
            reason=reason,
            max_attempts=MAX_ATTEMPTS,
        )
        return bool(run(self._redis, call))


def _claimed(kind: Kind, worker: str, flat: list[bytes] | None) -> Claim | None:
    """The claim by the reply of a script: the record, or None."""
    if flat is None:
        return None
    hash = hash_of(flat)
    record = EpisodeRecord.from_hash(hash) if kind == "episode" else TrainingRecord.from_hash(hash)
    return Claim(kind, record.id, int(hash[b"fence"]), worker, record, hash)
