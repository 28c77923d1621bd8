"""The workers' and the operator's half of the store. Methods raise ``errors.UNAVAILABLE`` at once: retrying is the
caller's, who knows how long it may wait."""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.settings import Settings
from app.store import codec, keys, measures, scripts
from app.store.errors import NotFound, unwrapped
from app.store.keys import Kind
from app.store.measures import PRESENCE_S
from app.store.records import SCOPES, EpisodeRecord, KeyRecord, ModelRecord, Scope, TrainingRecord, WorkerRecord

# A client waits for an episode. Nobody waits for a training run by the second, and it shares its core with whatever
# else runs: a machine that is busy for some seconds must not make it begin again.
LEASE_S: dict[Kind, float] = {"episode": 3.0, "training": 15.0}
MAX_ATTEMPTS = 3
_RUNNING: dict[Kind, str] = {"episode": "adapting", "training": "running"}
_GIVEN_UP = {
    "episode": f"the worker died {MAX_ATTEMPTS} times while adapting this episode; it was given up",
    "training": f"the worker died {MAX_ATTEMPTS} times without getting any further; the run was given up",
}

Beat = Literal["held", "lost", "cancel", "drain"]


@dataclass(frozen=True)
class Claim:
    """The right to work on one thing, while its lease is renewed and its fence is the newest."""

    kind: Kind
    id: str
    fence: int
    worker: str
    record: EpisodeRecord | TrainingRecord
    hash: codec.Hash

    @property
    def running(self) -> str:
        return _RUNNING[self.kind]


class SyncStore:
    """Safe to share between threads."""

    def __init__(self, redis: Redis, max_bytes: int) -> None:
        # redis-py types every reply as bytes or str; ours are bytes, since nothing is decoded.
        self._redis: Any = redis
        self._max_bytes = max_bytes

    @classmethod
    def open(cls, settings: Settings) -> Self:
        retry = Retry(NoBackoff(), 0)
        redis = Redis.from_url(settings.store_url, retry=retry, socket_timeout=5, socket_connect_timeout=2)
        return cls(redis, settings.max_store_bytes)

    def close(self) -> None:
        self._redis.close()

    @unwrapped()
    def ping(self) -> None:
        self._redis.ping()

    # ------------------------------------------------------------------ claims

    def claim(self, kind: Kind, id: str, worker: str) -> Claim | None:
        """None if there is nothing to do: another worker has it, it has ended, was deleted or expired."""
        flat = self._run(
            scripts.CLAIM,
            [keys.record(kind, id), keys.queued(kind), keys.leases(kind)],
            [kind, id, _RUNNING[kind], worker, int(LEASE_S[kind] * 1000)],
        )
        if flat is None:
            return None
        hash = dict(zip(flat[::2], flat[1::2], strict=True))
        record = codec.episode(hash) if kind == "episode" else codec.training(hash)
        return Claim(kind, id, int(hash[b"fence"]), worker, record, hash)

    def beat(self, claim: Claim) -> Beat:
        """Renews the lease. ``lost``: somebody else has it, or it is gone; ``cancel``: the user wants it stopped;
        ``drain``: this worker is to end."""
        names = [keys.record(claim.kind, claim.id), keys.leases(claim.kind), keys.draining(claim.worker)]
        answer = self._run(scripts.BEAT, names, [claim.id, claim.running, claim.fence, int(LEASE_S[claim.kind] * 1000)])
        beat: Beat = answer.decode()
        return beat

    def progress(self, claim: Claim, fields: dict[str, Any], *, epoch: int = 0) -> bool:
        """Replaces the record's progress fields; False if the claim no longer stands."""
        return bool(
            self._run(
                scripts.PROGRESS,
                [keys.record(claim.kind, claim.id)],
                [claim.kind, claim.id, claim.running, claim.fence, codec.encode(fields), epoch],
            )
        )

    def commit_episode(self, claim: Claim, progress: dict[str, Any], result: dict[str, Any], artifact: bytes) -> bool:
        """Artifact and state at once; False if the claim no longer stands (then nothing is written)."""
        return bool(
            self._run(
                scripts.COMMIT_EPISODE,
                [keys.record("episode", claim.id), keys.leases("episode"), keys.artifact(claim.id)],
                [claim.id, claim.fence, codec.encode(progress), codec.encode(result), artifact, self._max_bytes],
            )
        )

    def commit_training(self, claim: Claim, version: str, weights: bytes, card: dict[str, Any]) -> bool:
        """The new model version and the run's end at once; False if the claim no longer stands."""
        return bool(
            self._run(
                scripts.COMMIT_TRAINING,
                [
                    keys.model(version),
                    keys.MODELS,
                    keys.ACTIVE_MODEL,
                    keys.record("training", claim.id),
                    keys.leases("training"),
                ],
                [
                    version,
                    weights,
                    codec.encode(card),
                    claim.id,
                    claim.fence,
                    codec.encode({"model_version": version}),
                ],
            )
        )

    def fail(self, claim: Claim, error: str) -> bool:
        """Ended for good: another try would end the same way."""
        return self._release(claim, "failed", error)

    def retry(self, claim: Claim, error: str) -> bool:
        """Another try, or failed with ``error`` after the last one."""
        return self._release(claim, "retry", error)

    def cancelled(self, claim: Claim) -> bool:
        return self._release(claim, "cancelled", "")

    def hand_back(self, claim: Claim) -> bool:
        """Back into the queue, uncounted: this worker is to end."""
        return self._release(claim, "back", "")

    def support(self, claim: Claim) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, channels, height, width) and int64 (n,). Raises NotFound if it was deleted meanwhile."""
        data = self._redis.get(keys.support(claim.id))
        if data is None:
            raise NotFound(f"episode {claim.id} was deleted")
        shape = json.loads(claim.hash[b"shape"])
        labels = np.asarray(codec.episode_labels(claim.hash), dtype=np.int64)
        # Copied, for what is read from bytes cannot be written to, of which torch warns.
        return np.frombuffer(data, dtype=np.uint8).reshape(shape).copy(), labels

    def observe(self, measured: Mapping[measures.Name, Sequence[float]]) -> None:
        """Adds to what the workers of this installation have measured."""
        measures.add(self._redis, measured)

    # ------------------------------------------------------------------ reconciler

    def uptime(self) -> int:
        """Whole seconds since Redis started."""
        return int(self._redis.info("server")["uptime_in_seconds"])

    def due(self, kind: Kind) -> list[str]:
        """Ids whose wake-up is to be sent now; ends leases that ran out on the way."""
        names = [keys.queued(kind), keys.leases(kind), keys.broker_queue(kind)]
        return [id.decode() for id in self._run(scripts.DUE, names, [kind, MAX_ATTEMPTS, _GIVEN_UP[kind]])]

    def sweep(self) -> int:
        """Forgets up to 100 expired episodes; says how many."""
        names = [keys.EXPIRY, keys.index("episode"), keys.queued("episode"), keys.leases("episode")]
        return int(self._run(scripts.SWEEP, names, []))

    def expire_lease(self, kind: Kind, id: str, worker: str) -> bool:
        """The process of ``worker`` that held the claim is known to be dead."""
        return bool(self._run(scripts.EXPIRE_LEASE, [keys.record(kind, id), keys.leases(kind)], [id, worker]))

    # ------------------------------------------------------------------ workers

    @unwrapped()
    def present(self, worker: WorkerRecord) -> None:
        """This worker lives and is ready, for the next ``PRESENCE_S`` seconds."""
        self._redis.set(keys.worker(worker.queue, worker.name), codec.encode(asdict(worker)), px=int(PRESENCE_S * 1000))

    @unwrapped()
    def absent(self, queue: str, name: str) -> None:
        self._redis.delete(keys.worker(queue, name))

    def get_worker(self, queue: str, name: str) -> WorkerRecord | None:
        """None if it does not beat."""
        value: bytes | None = self._redis.get(keys.worker(queue, name))
        return None if value is None else WorkerRecord(**json.loads(value))

    def workers_on(self, queue: str, host: str) -> int:
        """How many workers of this queue beat on this host."""
        return sum(1 for _ in self._redis.scan_iter(match=keys.worker(queue, f"{host}-*"), count=1000))

    @unwrapped()
    def drain(self, name: str, seconds: int) -> None:
        """Tells the children of this worker, by their next beat, to hand back what takes long."""
        self._redis.set(keys.draining(name), "", ex=seconds)

    # ------------------------------------------------------------------ models

    def register_model(self, version: str, weights: bytes, card: dict[str, Any]) -> None:
        """Once for each version, however often called; the first one of all becomes the active one."""
        names = [keys.model(version), keys.MODELS, keys.ACTIVE_MODEL]
        self._run(scripts.REGISTER_MODEL, names, [version, weights, codec.encode(card)])

    def active_version(self) -> str | None:
        return codec.text(self._redis.get(keys.ACTIVE_MODEL))

    def get_model(self, version: str) -> ModelRecord:
        """Raises NotFound."""
        hash = self._redis.hgetall(keys.model(version))
        if not hash:
            raise NotFound(f"there is no model version {version}")
        return codec.model(version, hash, self.active_version())

    def model_weights(self, version: str) -> bytes:
        """Safetensors. Raises NotFound."""
        weights: bytes | None = self._redis.hget(keys.model(version), "weights")
        if weights is None:
            raise NotFound(f"there is no model version {version}")
        return weights

    # ------------------------------------------------------------------ keys

    def make_key(
        self, name: str, scopes: Iterable[Scope], token: str | None = None, tenant: str | None = None
    ) -> tuple[KeyRecord, str]:
        """A new key and its token, which is shown this once; a ``token`` that has a key already gives that key.

        Keys of one ``tenant`` share their episodes; without one, a key is a tenant of its own, named by its id.
        """
        wanted = frozenset(scopes)
        if not wanted or not wanted <= SCOPES:
            raise ValueError(f"scopes must be some of {', '.join(sorted(SCOPES))}")
        token = token or new_token()
        id = keys.new_id()
        names = [keys.key(id), keys.key_by_token(token), keys.KEYS]
        values = [id, name, tenant or id, codec.encode(sorted(wanted)), keys.token_digest(token)]
        kept = self._run(scripts.MAKE_KEY, names, values).decode()
        return self.get_key(kept), token

    def get_key(self, id: str) -> KeyRecord:
        """Raises NotFound."""
        hash = self._redis.hgetall(keys.key(id))
        if not hash:
            raise NotFound(f"there is no key {id}")
        return codec.key(id, hash)

    def list_keys(self) -> list[KeyRecord]:
        """Oldest first, revoked ones included."""
        return [self.get_key(id.decode()) for id in self._redis.zrange(keys.KEYS, 0, -1)]

    @unwrapped()
    def revoke_key(self, id: str) -> KeyRecord:
        """Raises NotFound. Its token is refused from now on; its episodes stay until they expire."""
        self.get_key(id)
        with self._redis.pipeline() as both:
            both.hset(keys.key(id), "revoked", "1").publish(keys.CHANGES, f"key:{id}").execute()
        return self.get_key(id)

    # ------------------------------------------------------------------ inside

    def _release(self, claim: Claim, end: str, error: str) -> bool:
        return bool(
            self._run(
                scripts.RELEASE,
                [keys.record(claim.kind, claim.id), keys.queued(claim.kind), keys.leases(claim.kind)],
                [claim.kind, claim.id, claim.running, claim.fence, end, error, MAX_ATTEMPTS],
            )
        )

    @unwrapped()
    def _run(self, script: str, names: list[str], arguments: list[Any]) -> Any:
        return self._redis.register_script(script)(names, arguments)


def new_token() -> str:
    """256 bits of chance."""
    return "lam_" + secrets.token_urlsafe(32)
