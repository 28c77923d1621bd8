"""Training runs, as the app needs them."""

import hashlib
import json
from typing import Any

from celery import Celery
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from app.settings import Settings
from app.store import errors, keys
from app.store.jobs import Jobs, origin, raise_if_refused
from app.store.notifications import Notifications
from app.store.objects import Objects, delete_dropped
from app.store.records import TRAINING_ENDS, TrainingRecord, to_json
from app.store.registry import Call, run, run_async, script
from app.store.replication import Replication

_CREATE = script("create_training")
_CANCEL = script("cancel_training")
_RESUME = script("resume_training")
_REMOVE = script("remove_training")


class Trainings(Jobs[TrainingRecord]):
    """Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(
        self, settings: Settings, redis: Redis, celery: Celery, changes: Notifications, replication: Replication
    ) -> None:
        super().__init__("training", TrainingRecord.from_hash, TRAINING_ENDS, redis, celery, changes, replication)
        self._max_queue = settings.max_queue

    async def create(
        self, *, owner: str, dataset: str, options: dict[str, Any], idempotency_key: str | None = None
    ) -> TrainingRecord:
        """Stores and enqueues a training run: durable when this returns. If ``idempotency_key`` was used by this owner
        for the same run before, that run is returned. Without one, nobody would ask again for a run of which its client
        was not told: none is left then. Raises IdempotencyConflict, QueueFull."""
        id, kept = keys.new_id(), idempotency_key is not None
        spec = {"id": id, "owner": owner, "dataset": dataset, "options": options} | origin()
        call = _CREATE(
            record=keys.record("training", id),
            queued=keys.queued("training"),
            index=keys.index("training"),
            idempotency=keys.idempotency(owner, idempotency_key or ""),
            tombstone=keys.tombstone("training", id),
            id=id,
            spec=to_json(spec),
            max_queue=self._max_queue,
            digest=hashlib.sha256(json.dumps([dataset, options], sort_keys=True).encode()).hexdigest(),
            idempotent=kept,
        )
        status, id_or_waiting, replicas = await self._created(id, owner, call, kept=kept)
        raise_if_refused(status, id_or_waiting)
        if status == b"existing":
            await self._replication.confirm(replicas)
            return await self.get(id_or_waiting.decode())
        return await self._acknowledged(id, owner, replicas, kept=kept)

    async def _forget(self, id: str, owner: str) -> None:
        _, replicas = await run_async(self._redis, _removal(id, withdrawn=True))
        await self._replication.confirm(replicas)

    async def datasets(self) -> set[str]:
        """The names of the data sets in the object store."""
        return {name.decode() for name in await self._redis.hkeys(keys.DATASETS)}

    async def cancel(self, id: str) -> TrainingRecord:
        """A queued run is cancelled at once, a running one within about a second (``cancelling`` until then); one that
        has ended stays as it is. Raises NotFound."""
        await self.get(id)
        call = _CANCEL(record=keys.record("training", id), queued=keys.queued("training"), id=id)
        await run_async(self._redis, call)
        return await self.get(id)

    async def resume(self, id: str) -> TrainingRecord:
        """Enqueues a failed or cancelled run again; it continues from its last checkpoint. A queued or running one
        stays as it is, since the answer to an earlier call may have been lost. Raises NotFound, Conflict."""
        await self.get(id)
        call = _RESUME(record=keys.record("training", id), queued=keys.queued("training"), id=id)
        status = (await run_async(self._redis, call)).decode()
        if status in ("finished", "being cancelled"):
            raise errors.Conflict(f"training {id} is {status}; only a failed or cancelled one can be resumed")
        if status == "resumed":
            await self._wake(id)
        return await self.get(id)


class SyncTrainings:
    """The blocking half. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: SyncRedis, objects: Objects) -> None:
        self._redis: Any = redis
        self._objects = objects

    def ended_before(self, at: float) -> list[str]:
        """The ids of the runs that ended before this time (seconds since 1970); of those that earlier versions ended,
        which did not write down when, the ones that were created before it."""
        found = self._redis.zrangebylex(keys.index("training"), "-", f"({keys.first_id(at)}")
        ids = [id.decode() for id in found]
        with self._redis.pipeline(transaction=False) as reads:
            for id in ids:
                reads.hmget(keys.record("training", id), "state", "ended_at")
            seen = reads.execute()
        return [
            id
            for id, (state, ended_at) in zip(ids, seen, strict=True)
            if state is None or (state.decode() in TRAINING_ENDS and int(ended_at or 0) < 1000 * at)
        ]

    def exists(self, id: str) -> bool:
        return bool(self._redis.exists(keys.record("training", id)))

    def remove(self, id: str) -> bool:
        """Forgets a run; False if it has not ended."""
        dropped, _ = run(self._redis, _removal(id, withdrawn=False))
        delete_dropped(self._objects, [dropped] if dropped else [])
        return dropped is not None


def _removal(id: str, *, withdrawn: bool) -> Call:
    """``withdrawn``: also if it has not ended."""
    return _REMOVE(
        record=keys.record("training", id),
        queued=keys.queued("training"),
        leases=keys.leases("training"),
        index=keys.index("training"),
        checkpoints=keys.CHECKPOINTS,
        tombstone=keys.tombstone("training", id),
        id=id,
        withdrawn=withdrawn,
    )
