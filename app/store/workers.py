"""The workers: which of them have a fresh heartbeat, what waits for them, what they measure."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from app.store import keys, measures
from app.store.errors import refusals_named
from app.store.keys import Kind
from app.store.records import Queue, TrainingRecord, WorkerRecord, to_json

# How long a heartbeat is fresh.
HEARTBEAT_TTL_S = 5.0


class Workers:
    """The asynchronous half, which only reads. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: AsyncRedis) -> None:
        # redis-py types every reply as bytes or str; ours are bytes, since nothing is decoded.
        self._redis: Any = redis

    async def alive(self) -> dict[Queue, list[WorkerRecord]]:
        """The workers with a fresh heartbeat, by queue. Their first heartbeat comes after loading the meta-model."""
        found: dict[Queue, list[WorkerRecord]] = {"adapt": [], "train": []}
        async for name in self._redis.scan_iter(match=keys.worker("*", "*"), count=1000):
            value = await self._redis.get(name)
            if value is not None:
                record = WorkerRecord(**json.loads(value))
                found[record.queue].append(record)
        return found

    async def figures(self) -> measures.Figures:
        """What the workers have measured, and what they do now."""
        ages, training = await self._heartbeat_ages(), await self._training()
        return measures.Figures(measures.histograms(await self._redis.hgetall(keys.MEASUREMENTS)), ages, training)

    async def queue_lengths(self) -> dict[Queue, int]:
        """How many jobs wait for a worker, by queue."""
        return await self._sizes(keys.queued)

    async def running(self) -> dict[Queue, int]:
        """How many jobs a worker has claimed, by queue."""
        return await self._sizes(keys.leases)

    async def _heartbeat_ages(self) -> dict[Queue, float]:
        """Seconds since the oldest fresh heartbeat of each queue that has any."""
        ages: dict[Queue, float] = {}
        for queue in keys.QUEUE_OF.values():
            async for name in self._redis.scan_iter(match=keys.worker(queue, "*"), count=1000):
                left = await self._redis.pttl(name)
                if left > 0:
                    ages[queue] = max(ages.get(queue, 0.0), HEARTBEAT_TTL_S - left / 1000)
        return ages

    async def _training(self) -> TrainingRecord | None:
        """The run that is being trained: of several, the one whose lease expires last."""
        running = await self._redis.zrevrange(keys.leases("training"), 0, 0)
        hash = await self._redis.hgetall(keys.record("training", running[0].decode())) if running else {}
        return TrainingRecord.from_hash(hash) if hash else None

    async def _sizes(self, name: Callable[[Kind], str]) -> dict[Queue, int]:
        return {queue: await self._redis.zcard(name(kind)) for kind, queue in keys.QUEUE_OF.items()}


class SyncWorkers:
    """The blocking half. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    @refusals_named()
    def heartbeat(self, worker: WorkerRecord) -> None:
        """This worker is alive and ready, for the next ``HEARTBEAT_TTL_S`` seconds."""
        name = keys.worker(worker.queue, worker.name)
        self._redis.set(name, to_json(asdict(worker)), px=int(HEARTBEAT_TTL_S * 1000))

    @refusals_named()
    def remove(self, queue: str, name: str) -> None:
        """This worker takes no more jobs."""
        self._redis.delete(keys.worker(queue, name))

    def count_on_host(self, queue: str, host: str) -> int:
        """How many workers of this queue and host have a fresh heartbeat."""
        names = self._redis.scan_iter(match=keys.worker(queue, f"{host}-*"), count=1000)
        # "web-*" is also the pattern of "web-2-0123abcd", a worker on the host "web-2".
        return sum(name.decode().rpartition("-")[0] == keys.worker(queue, host) for name in names)

    @refusals_named()
    def drain(self, name: str, seconds: int) -> None:
        """Makes the pool processes of this worker hand back what takes long, when they next renew a lease."""
        self._redis.set(keys.draining(name), "", ex=seconds)

    def add_measurements(self, measured: Mapping[measures.Name, Sequence[float]]) -> None:
        """Adds seconds to what the workers of this installation have measured."""
        measures.add(self._redis, measured)
