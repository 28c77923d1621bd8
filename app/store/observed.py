"""What is going on in the installation: who works, what waits, what was measured."""

import json
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis

from app.store import keys, measures
from app.store.keys import Kind
from app.store.records import Queue, WorkerRecord


class Observed:
    """Only reads. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(self, client: Redis) -> None:
        # redis-py types every reply as bytes or str; ours are bytes, since nothing is decoded.
        self._redis: Any = client

    async def workers(self) -> dict[Queue, list[WorkerRecord]]:
        """Who beats, by queue. A worker is among them once its meta-model is loaded."""
        found: dict[Queue, list[WorkerRecord]] = {"adapt": [], "train": []}
        async for name in self._redis.scan_iter(match=keys.worker("*", "*"), count=1000):
            value = await self._redis.get(name)
            if value is not None:
                record = WorkerRecord(**json.loads(value))
                found[record.queue].append(record)
        return found

    async def queue_lengths(self) -> dict[Queue, int]:
        """How many wait for a worker, by queue."""
        return await self._sizes(keys.queued)

    async def running(self) -> dict[Queue, int]:
        """How many a worker has claimed, by queue."""
        return await self._sizes(keys.leases)

    async def figures(self) -> measures.Figures:
        """What the workers measured and where they are."""
        return await measures.read(self._redis)

    async def _sizes(self, name: Callable[[Kind], str]) -> dict[Queue, int]:
        return {queue: await self._redis.zcard(name(kind)) for kind, queue in keys.QUEUE_OF.items()}
