"""The workers: which of them have a fresh heartbeat, what waits for them, what they measure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from app.store import keys, measures
from app.store.errors import refusals_named
from app.store.records import Queue, TrainingRecord, WorkerRecord, hash_of, to_json
from app.store.registry import run, run_async, script

# How long a heartbeat is fresh.
HEARTBEAT_TTL_S = 5.0
_FRESH_MS = int(HEARTBEAT_TTL_S * 1000)
_HEARTBEAT = script("heartbeat")
_QUEUES = script("queues")
_FRESH = script("fresh_workers")
_FIGURES = script("figures")


@dataclass(frozen=True)
class QueueState:
    """A queue: how many jobs wait for a worker, how many a worker has claimed, and the workers with a fresh heartbeat,
    the oldest of which is ``heartbeat_age`` seconds old (None without a worker). ``starting``: how many workers are
    loading the meta-model."""

    waiting: int
    running: int
    workers: tuple[WorkerRecord, ...]
    heartbeat_age: float | None
    starting: int


class Workers:
    """The asynchronous half, which only reads. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: AsyncRedis) -> None:
        # redis-py types every reply as bytes or str; ours are bytes, since nothing is decoded.
        self._redis: Any = redis

    async def queues(self) -> dict[Queue, QueueState]:
        """The state of each queue. A worker's first heartbeat comes after loading the meta-model."""
        names = [
            name
            for kind, queue in keys.QUEUE_OF.items()
            for name in (keys.queued(kind), keys.leases(kind), keys.workers(queue))
        ]
        call = _QUEUES(records=keys.WORKER_RECORDS, three_for_each_queue=names, fresh_ms=_FRESH_MS)
        found = zip(keys.QUEUE_OF.values(), await run_async(self._redis, call), strict=True)
        return {
            queue: QueueState(waiting, running, _records(records), None if age is None else age / 1000, starting)
            for queue, (waiting, running, age, records, starting) in found
        }

    async def figures(self) -> measures.Figures:
        """What was measured and counted, and what is stored, waits and is trained now."""
        call = _FIGURES(
            measurements=keys.MEASUREMENTS,
            queued_episodes=keys.queued("episode"),
            queued_trainings=keys.queued("training"),
        )
        flat, memory, support, classifiers, episodes_ms, trainings_ms = await run_async(self._redis, call)
        hash = hash_of(flat)
        return measures.Figures(
            measures.histograms(hash),
            measures.counts(hash),
            store_bytes=memory,
            object_bytes={"support": int(support), "classifiers": int(classifiers)},
            waiting_seconds={"adapt": episodes_ms / 1000, "train": trainings_ms / 1000},
            training=await self._training(),
        )

    async def _training(self) -> TrainingRecord | None:
        """The run that is being trained: of several, the one whose lease expires last."""
        running = await self._redis.zrevrange(keys.leases("training"), 0, 0)
        hash = await self._redis.hgetall(keys.record("training", running[0].decode())) if running else {}
        return TrainingRecord.from_hash(hash) if hash else None


class SyncWorkers:
    """The blocking half. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    def heartbeat(self, worker: WorkerRecord) -> None:
        """This worker is alive and ready, for the next ``HEARTBEAT_TTL_S`` seconds."""
        self._beat(worker.queue, worker.name, to_json(asdict(worker)))

    def announce(self, queue: str, name: str) -> None:
        """This worker is starting, for the next ``HEARTBEAT_TTL_S`` seconds."""
        self._beat(queue, name, "")

    def _beat(self, queue: str, name: str, record: str) -> None:
        workers = keys.workers(queue)
        run(
            self._redis,
            _HEARTBEAT(workers=workers, records=keys.WORKER_RECORDS, name=name, record=record, fresh_ms=_FRESH_MS),
        )

    @refusals_named()
    def remove(self, queue: str, name: str) -> None:
        """This worker takes no more jobs."""
        with self._redis.pipeline() as both:
            both.zrem(keys.workers(queue), name).hdel(keys.WORKER_RECORDS, name).execute()

    def count_on_host(self, queue: str, host: str) -> int:
        """How many workers of this queue and host have a fresh heartbeat."""
        call = _FRESH(workers=keys.workers(queue), records=keys.WORKER_RECORDS, fresh_ms=_FRESH_MS)
        names: list[bytes] = run(self._redis, call)
        # "web-2-0123abcd" is a worker on the host "web-2", not on "web".
        return sum(name.decode().rpartition("-")[0] == host for name in names)

    @refusals_named()
    def drain(self, name: str, seconds: int) -> None:
        """Makes the pool processes of this worker hand back what takes long, when they next renew a lease."""
        self._redis.set(keys.draining(name), "", ex=seconds)

    def add_measurements(self, measured: Mapping[measures.Name, Sequence[float]]) -> None:
        """Adds seconds to what the workers of this installation have measured."""
        measures.add(self._redis, measured)


def _records(values: Sequence[bytes]) -> tuple[WorkerRecord, ...]:
    return tuple(WorkerRecord(**json.loads(value)) for value in values)
