"""What episodes and training runs have in common for the app: they are read, listed, watched, and woken up for."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Generic, TypeVar

from celery import Celery
from redis.asyncio import Redis

from app.queue import wake
from app.store import deadline, errors, keys
from app.store.batches import Batches
from app.store.keys import Kind
from app.store.notifications import Notifications
from app.store.records import EpisodeRecord, Hash, TrainingRecord, hash_of
from app.store.registry import Call, run_async, script
from app.store.replication import Replication
from app.telemetry import logs, tracing

log = logging.getLogger(__name__)
Record = TypeVar("Record", EpisodeRecord, TrainingRecord)

_PAGE = script("page")
# A watcher reads the record at least this often: no notice tells how many wait before it, and a notice may be lost.
# It takes 0.1 ms of the app's processor time, and there may be thousands of watchers.
POLL_S = 5.0
# How long after a failure a job is withdrawn again: at first, and at most.
WITHDRAW_S, WITHDRAW_MOST_S = 1.0, 60.0
# How many records watchers read in one round trip: it takes this process some milliseconds.
MAX_BATCH = 64


class Jobs(ABC, Generic[Record]):
    """The jobs of one kind. Every method may raise ``errors.UNAVAILABLE``."""

    def __init__(
        self,
        kind: Kind,
        decode: Callable[[Hash], Record],
        final_states: frozenset[str],
        redis: Redis,
        celery: Celery,
        changes: Notifications,
        replication: Replication,
    ) -> None:
        # redis-py types every reply as bytes or str; ours are bytes, since nothing is decoded.
        self._redis: Any = redis
        self._kind = kind
        self._decode: Callable[[Hash], Record] = decode
        self._final_states = final_states
        self._celery = celery
        self._changes = changes
        self._replication = replication
        self._watched: Batches[str, Hash] = Batches(self._read, most=MAX_BATCH)
        self._withdrawals: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def get(self, id: str) -> Record:
        """Raises NotFound; Gone for an episode."""
        return self._decode(await self._current(id))

    async def page(self, owner: str | None, limit: int, cursor: str | None = None) -> tuple[list[Record], str | None]:
        """Up to ``limit`` records, newest first, of one owner or (None) of all, and the cursor of the next page (None
        after the last one)."""
        call = _PAGE(
            index=keys.index(self._kind, owner),
            kind=self._kind,
            end_before=f"({cursor}" if cursor else "+",
            limit=limit,
        )
        found, last = await run_async(self._redis, call)
        return [self._decode(hash_of(flat)) for flat in found], last.decode() or None

    async def close(self) -> None:
        """Each withdrawal that is under way is tried a last time."""
        self._closing.set()
        await asyncio.gather(*self._withdrawals, return_exceptions=True)
        await self._watched.close()

    async def watch(self, id: str) -> AsyncIterator[Record]:
        """The record as it is now, then after each change; ends after a final state. Raises NotFound; Gone for an
        episode, also when it is deleted meanwhile. Waits while Redis is unavailable."""
        last_hash: Hash = {}
        last = None
        with self._changes.waiting(f"{self._kind}:{id}") as changed:
            while True:
                changed.clear()
                try:
                    with deadline.limited():  # each time anew: a client may watch for hours
                        hash = await self._current(id)
                except errors.UNAVAILABLE as error:
                    log.warning("waiting for Redis: %s", error)
                    hash = last_hash
                if hash != last_hash:
                    last_hash = hash
                    record = self._decode(hash)
                    if record != last:
                        last = record
                        yield record
                    if record.state in self._final_states:
                        return
                try:
                    async with asyncio.timeout(POLL_S):
                        await changed.wait()
                except TimeoutError:
                    continue

    async def _current(self, id: str) -> Hash:
        return await self._watched.ask(id) or await self._hash(id)

    async def _read(self, ids: list[str]) -> list[Hash]:
        """The hash of each record; an empty one where there is none."""
        async with self._redis.pipeline(transaction=False) as reads:
            for id in ids:
                reads.hgetall(keys.record(self._kind, id))
            return list(await reads.execute())

    async def _hash(self, id: str) -> Hash:
        hash: dict[bytes, bytes] = await self._redis.hgetall(keys.record(self._kind, id))
        if hash:
            return hash
        owner = await self._redis.get(keys.tombstone(self._kind, id))
        if owner is not None:
            raise errors.Gone(f"{self._kind} {id} expired or was deleted", owner.decode())
        raise errors.NotFound(f"there is no {self._kind} {id}")

    async def _confirmed(self, id: str) -> Record:
        """The record of a job that a replica has confirmed, if it was not written to a primary that a failover has
        replaced. Raises NotReplicatedError."""
        try:
            return await self.get(id)
        except errors.NotFound as error:
            raise errors.NotReplicatedError(f"{self._kind} {id} was lost in a failover") from error

    @abstractmethod
    async def _forget(self, id: str, owner: str) -> None:
        """Removes a job in whatever state, if it is there, and returns once a replica knows, if there is one; what a
        worker makes of it will be refused."""

    async def _created(self, id: str, owner: str, call: Call, *, kept: bool) -> Any:
        """The reply of the script that creates a job. If it is lost, the job may be there, and is withdrawn, as in
        ``_acknowledged``; if Redis refuses the script, it is not."""
        try:
            return await run_async(self._redis, call)
        except errors.REFUSING:
            raise
        except errors.UNAVAILABLE:
            self._withdraw(id, owner, kept=kept)
            raise

    async def _acknowledged(self, id: str, owner: str, replicas: int, *, kept: bool) -> Record:
        """The record of a job that was created, once a replica has it (``Replication.confirm``) and a worker has been
        woken up. If that fails, its client gets an error, so that nobody will ask for the job: it is withdrawn.
        ``kept``: it is not, as whoever repeats the request gets this job."""
        try:
            await self._replication.confirm(replicas)
            await self._wake(id)
            return await self._confirmed(id)
        except errors.UNAVAILABLE:
            self._withdraw(id, owner, kept=kept)
            raise

    def _withdraw(self, id: str, owner: str, *, kept: bool) -> None:
        """In the background, as the time of the request may be over: removes a job once Redis lets it."""
        if kept:
            return

        async def forget() -> None:
            pause = WITHDRAW_S
            while True:
                try:
                    return await self._forget(id, owner)
                except errors.UNAVAILABLE as error:
                    log.warning("%s %s was answered with 503, and is not removed yet: %s", self._kind, id, error)
                if self._closing.is_set():
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._closing.wait()
                pause = min(2 * pause, WITHDRAW_MOST_S)

        task = asyncio.create_task(forget(), context=Context())
        self._withdrawals.add(task)
        task.add_done_callback(self._withdrawals.discard)

    async def _wake(self, id: str) -> None:
        # The job is stored already: if its wake-up cannot be sent now, the reconciler sends it.
        try:
            async with deadline.waiting():
                await asyncio.to_thread(wake, self._celery, self._kind, id)
        except Exception as error:  # kombu passes on whatever its transport raised
            log.warning("wake-up for %s %s not sent, left to the reconciler: %s", self._kind, id, error)


def origin() -> dict[str, str | None]:
    """What connects a worker's logs and traces with those of the request."""
    return {"request_id": logs.current_fields().get("request_id"), "traceparent": tracing.current()}


def raise_if_refused(status: bytes, waiting: Any) -> None:
    """By the reply of a script that enqueues. Raises QueueFull, StoreFull, IdempotencyConflict, and
    ObjectsUnavailableError if it took too long."""
    if status in (b"full", b"own-full"):
        raise errors.QueueFull.behind(int(waiting), own=status == b"own-full")
    if status == b"no-room":
        raise errors.StoreFull
    if status == b"late":
        raise errors.ObjectsUnavailableError("storing the request took too long")
    if status == b"conflict":
        raise errors.IdempotencyConflict("this Idempotency-Key was used before with another request")
