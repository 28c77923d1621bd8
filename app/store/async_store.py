"""The app's half of the store: submit, read, watch. Every method may raise ``errors.UNAVAILABLE``."""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self, TypeVar

import numpy as np
import redis.exceptions
from celery import Celery
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from app.queue import celery_app, wake
from app.settings import Settings
from app.store import codec, errors, keys, scripts
from app.store.api_keys import Access
from app.store.keys import Kind
from app.store.lookup_cache import Standings
from app.store.notifications import Changes
from app.store.observed import Observed
from app.store.records import EPISODE_ENDS, TRAINING_ENDS, EpisodeRecord, ModelRecord, TrainingRecord
from app.telemetry import logs, tracing

log = logging.getLogger(__name__)
Record = TypeVar("Record", EpisodeRecord, TrainingRecord)

CONNECTIONS = 64
# A watcher looks by itself this often, in case a notice was lost.
LOOK_AGAIN_S = 2.0


class Store:
    """Use ``store = await Store.open(settings)`` and ``await store.close()``. One for each app process."""

    def __init__(self, settings: Settings, client: Redis, quick: Redis, celery: Celery) -> None:
        self._settings = settings
        # redis-py types every reply as bytes or str; ours are bytes, since nothing is decoded.
        self._redis: Any = client
        self._celery = celery
        self._quick = quick
        self._standings = Standings(quick)
        self._changes = Changes(client, self._standings.changed)
        self.access = Access(client, self._standings)
        self.observed = Observed(client)

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connects lazily: Redis need not be up yet."""
        options: dict[str, Any] = {
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            # 3 s in all: a restart of Redis is waited for, an outage is told.
            "retry": Retry(ExponentialBackoff(base=0.1, cap=1.0), 5),
        }
        pool = BlockingConnectionPool.from_url(settings.store_url, max_connections=CONNECTIONS, timeout=5, **options)
        client = Redis.from_pool(pool)
        # A connection of its own, which is never waited for: that takes a third of the time of a round trip.
        quick = Redis.from_pool(ConnectionPool.from_url(settings.store_url, max_connections=1, **options))
        store = cls(settings, client, quick, celery_app(settings))
        store._changes.start()
        return store

    async def close(self) -> None:
        await self._changes.stop()
        await self._standings.close()
        await self._quick.aclose()
        await self._redis.aclose()
        self._celery.close()

    async def ping(self) -> None:
        """Raises ``errors.UNAVAILABLE`` within a second."""
        try:
            async with asyncio.timeout(1):
                with errors.unwrapped():
                    await self._redis.ping()
        except TimeoutError as error:
            raise redis.exceptions.TimeoutError("Redis did not answer within a second") from error

    # ------------------------------------------------------------------ episodes

    async def create_episode(
        self,
        *,
        owner: str,
        name: str | None,
        classes: Sequence[str],
        shots: Sequence[int],
        support: np.ndarray,
        labels: Sequence[int],
        steps: int,
        seed: int,
        model_version: str,
        parent: str | None = None,
        idempotency_key: str | None = None,
        request_digest: str = "",
    ) -> tuple[EpisodeRecord, bool]:
        """Stores and enqueues an episode at once: durable when this returns.

        ``support``: uint8 (n, channels, height, width); ``labels``: n numbers into ``classes``. The flag is False
        where ``idempotency_key`` named an episode of the same owner and ``request_digest`` already; then that
        episode is returned (Gone if it was deleted). Raises IdempotencyConflict, QueueFull,
        StoreFull.
        """
        if support.dtype != np.uint8 or support.ndim != 4 or len(support) != len(labels):
            raise ValueError("support must be uint8 (n, c, h, w) with one label for each image")
        id = keys.new_id()
        spec = {
            "id": id,
            "owner": owner,
            "name": name,
            "classes": list(classes),
            "shots": [int(shot) for shot in shots],
            "steps": int(steps),
            "seed": int(seed),
            "model_version": model_version,
            "labels": [int(label) for label in labels],
            "parent": parent,
        } | _origin()
        status, existing = await self._run(
            scripts.CREATE_EPISODE,
            [
                keys.record("episode", id),
                keys.support(id),
                keys.queued("episode"),
                keys.index("episode"),
                keys.index("episode", owner),
                keys.tombstone("episode", id),
                keys.EXPIRY,
                keys.idempotency(owner, idempotency_key or ""),
                keys.unfinished(owner),
            ],
            [
                id,
                owner,
                codec.encode(spec),
                json.dumps(support.shape),
                np.ascontiguousarray(support).tobytes(),
                self._settings.episode_ttl_seconds * 1000,
                self._settings.max_queue,
                request_digest if idempotency_key is not None else "",
                int(idempotency_key is not None),
                self._settings.max_unfinished,
                self._settings.max_store_bytes,
            ],
        )
        _refuse_full(status, existing)
        if status == b"no-room":
            raise errors.StoreFull
        if status == b"conflict":
            raise _key_reused()
        if status == b"existing":
            return await self.get_episode(existing.decode()), False
        await self._wake("episode", id)
        return await self.get_episode(id), True

    async def get_episode(self, id: str) -> EpisodeRecord:
        """Raises NotFound, Gone."""
        return codec.episode(await self._hash("episode", id))

    async def episode_state(self, id: str) -> str | None:
        """As of a second ago at most; None if there is no such episode (any more)."""
        return codec.text((await self._standings.of("", id)).state)

    async def list_episodes(
        self, owner: str | None, limit: int, cursor: str | None = None
    ) -> tuple[list[EpisodeRecord], str | None]:
        """Newest first, of one owner or (None) of all; ``cursor`` is the one that the last page came with."""
        return await self._list("episode", owner, limit, cursor, codec.episode)

    async def delete_episode(self, id: str) -> None:
        """Raises NotFound, Gone. A running adaptation of it is dropped."""
        record = await self.get_episode(id)
        await self._run(
            scripts.DELETE_EPISODE,
            [
                keys.record("episode", id),
                keys.support(id),
                keys.artifact(id),
                keys.queued("episode"),
                keys.leases("episode"),
                keys.index("episode"),
                keys.index("episode", record.owner),
                keys.tombstone("episode", id),
                keys.EXPIRY,
            ],
            [id, record.owner],
        )
        self._standings.changed(f"episode:{id}")  # who is answered 204 may ask here before the notice comes

    async def get_artifact(self, id: str) -> bytes:
        """The finished classifier (ONNX). Raises NotFound, Gone, NotReady.

        One that was dropped to save memory is adapted again from now on, and NotReady until then; QueueFull if not.
        """
        artifact: bytes | None = await self._redis.get(keys.artifact(id))
        if artifact is not None:
            return artifact
        owner = (await self.get_episode(id)).owner
        status, waiting = await self._run(
            scripts.ADAPT_AGAIN,
            [keys.record("episode", id), keys.queued("episode"), keys.artifact(id), keys.unfinished(owner)],
            [id, self._settings.max_queue, self._settings.max_unfinished],
        )
        _refuse_full(status, waiting)
        if status == b"enqueued":
            await self._wake("episode", id)
        record = await self.get_episode(id)
        raise errors.NotReady(f"episode {id} is {record.state}")

    async def get_support(self, id: str) -> tuple[np.ndarray, list[int]]:
        """uint8 (n, channels, height, width), and the label number of each. Raises NotFound, Gone."""
        hash = await self._hash("episode", id)
        data: bytes | None = await self._redis.get(keys.support(id))
        if data is None:
            raise errors.Gone(f"the images of episode {id} are no longer there", json.loads(hash[b"spec"])["owner"])
        return np.frombuffer(data, dtype=np.uint8).reshape(json.loads(hash[b"shape"])), codec.episode_labels(hash)

    def watch_episode(self, id: str) -> AsyncIterator[EpisodeRecord]:
        """The record as it is now, then after each change; ends after ready or failed. Raises NotFound, Gone
        (also when it is deleted meanwhile). While Redis is away it waits."""
        return self._watch("episode", id, self.get_episode, EPISODE_ENDS)

    # ------------------------------------------------------------------ trainings

    async def create_training(
        self, *, owner: str, dataset: str, options: dict[str, Any], idempotency_key: str | None = None
    ) -> TrainingRecord:
        """Stores and enqueues a training run: durable when this returns. The one that ``idempotency_key`` named before
        if the same was asked then. Raises IdempotencyConflict, QueueFull."""
        id = keys.new_id()
        spec = {"id": id, "owner": owner, "dataset": dataset, "options": options} | _origin()
        status, waiting = await self._run(
            scripts.CREATE_TRAINING,
            [
                keys.record("training", id),
                keys.queued("training"),
                keys.index("training"),
                keys.idempotency(owner, idempotency_key or ""),
            ],
            [
                id,
                codec.encode(spec),
                self._settings.max_queue,
                hashlib.sha256(json.dumps([dataset, options], sort_keys=True).encode()).hexdigest(),
                int(idempotency_key is not None),
            ],
        )
        if status == b"conflict":
            raise _key_reused()
        if status == b"existing":
            return await self.get_training(waiting.decode())
        _refuse_full(status, waiting)
        await self._wake("training", id)
        return await self.get_training(id)

    async def get_training(self, id: str) -> TrainingRecord:
        """Raises NotFound."""
        return codec.training(await self._hash("training", id))

    async def list_trainings(
        self, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[TrainingRecord], str | None]:
        """Newest first."""
        return await self._list("training", None, limit, cursor, codec.training)

    def watch_training(self, id: str) -> AsyncIterator[TrainingRecord]:
        """As ``watch_episode``; ends after finished, failed or cancelled."""
        return self._watch("training", id, self.get_training, TRAINING_ENDS)

    async def cancel_training(self, id: str) -> TrainingRecord:
        """A queued run is cancelled at once, a running one within a second or so (``cancelling`` until then);
        one that has ended stays as it is. Raises NotFound."""
        await self.get_training(id)
        await self._run(scripts.CANCEL_TRAINING, [keys.record("training", id), keys.queued("training")], [id])
        return await self.get_training(id)

    async def resume_training(self, id: str) -> TrainingRecord:
        """Enqueues a failed or cancelled run again; it goes on from its last checkpoint. One that waits or runs stays
        as it is: the answer to an earlier call may have been lost. Raises NotFound, Conflict."""
        await self.get_training(id)
        names = [keys.record("training", id), keys.queued("training")]
        status = (await self._run(scripts.RESUME_TRAINING, names, [id])).decode()
        if status in ("finished", "being cancelled"):
            raise errors.Conflict(f"training {id} is {status}; only a failed or cancelled one can be resumed")
        if status == "resumed":
            await self._wake("training", id)
        return await self.get_training(id)

    # ------------------------------------------------------------------ models

    async def list_models(self) -> list[ModelRecord]:
        """Newest first."""
        versions = [version.decode() for version in await self._redis.zrevrange(keys.MODELS, 0, -1)]
        return [await self.get_model(version) for version in versions]

    async def get_model(self, version: str) -> ModelRecord:
        """Raises NotFound."""
        card, created_at = await self._redis.hmget(keys.model(version), ["card", "created_at"])
        if card is None or created_at is None:
            raise errors.NotFound(f"there is no model version {version}")
        return codec.model(version, {b"card": card, b"created_at": created_at}, await self._active_version())

    async def active_model(self) -> ModelRecord | None:
        """The one that new episodes are adapted from; None until a worker has registered the shipped one."""
        version = await self._active_version()
        return None if version is None else await self.get_model(version)

    async def activate_model(self, version: str) -> ModelRecord:
        """Raises NotFound. Running episodes keep the version they were made with."""
        if not await self._run(scripts.ACTIVATE_MODEL, [keys.model(version), keys.ACTIVE_MODEL], [version]):
            raise errors.NotFound(f"there is no model version {version}")
        return await self.get_model(version)

    # ------------------------------------------------------------------ inside

    async def _run(self, script: str, names: list[str], arguments: list[Any]) -> Any:
        with errors.unwrapped():
            return await self._redis.register_script(script)(names, [*arguments])

    async def _wake(self, kind: Kind, id: str) -> None:
        # The episode is safe already: what cannot be sent now, the reconciler sends.
        try:
            await asyncio.to_thread(wake, self._celery, kind, id)
        except Exception as error:  # kombu passes on whatever its transport raised
            log.warning("wake-up for %s %s not sent, left to the reconciler: %s", kind, id, error)

    async def _hash(self, kind: Kind, id: str) -> codec.Hash:
        hash: dict[bytes, bytes] = await self._redis.hgetall(keys.record(kind, id))
        if hash:
            return hash
        owner = await self._redis.get(keys.tombstone(kind, id))
        if owner is not None:
            raise errors.Gone(f"{kind} {id} expired or was deleted", owner.decode())
        raise errors.NotFound(f"there is no {kind} {id}")

    async def _list(
        self, kind: Kind, owner: str | None, limit: int, cursor: str | None, decode: Callable[[codec.Hash], Record]
    ) -> tuple[list[Record], str | None]:
        found: list[Record] = []
        end = f"({cursor}" if cursor else "+"
        while len(found) < limit:
            wanted = limit - len(found)
            ids = await self._redis.zrevrangebylex(keys.index(kind, owner), end, "-", start=0, num=wanted)
            for id in ids:
                hash = await self._redis.hgetall(keys.record(kind, id.decode()))
                if hash:
                    found.append(decode(hash))
            if len(ids) < wanted:
                return found, None
            end = f"({ids[-1].decode()}"
        return found, found[-1].id if found else None

    async def _watch(self, kind: Kind, id: str, read: Callable[[str], Any], ends: frozenset[str]) -> AsyncIterator[Any]:
        last = None
        with self._changes.waiting(f"{kind}:{id}") as changed:
            while True:
                changed.clear()
                try:
                    record = await read(id)
                except errors.UNAVAILABLE as error:
                    log.warning("waiting for Redis: %s", error)
                    record = last
                if record is not None and record != last:
                    last = record
                    yield record
                    if record.state in ends:
                        return
                try:
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await changed.wait()
                except TimeoutError:
                    continue

    async def _active_version(self) -> str | None:
        return codec.text(await self._redis.get(keys.ACTIVE_MODEL))


def _origin() -> dict[str, str | None]:
    """By what a worker's logs and traces are found from those of the request."""
    return {"request_id": logs.about().get("request_id"), "traceparent": tracing.current()}


def _refuse_full(status: bytes, waiting: Any) -> None:
    """Raises QueueFull."""
    if status in (b"full", b"own-full"):
        raise errors.QueueFull.behind(int(waiting), own=status == b"own-full")


def _key_reused() -> errors.IdempotencyConflict:
    return errors.IdempotencyConflict("this Idempotency-Key was used before with another request")
