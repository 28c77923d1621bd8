"""Observes the effects of a call to the store in Redis: the notifications published, and the times set."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from app.store import keys
from app.store.clients import Store
from app.store.objects import Objects, name_in
from app.store.records import Queue
from tests.conftest import PrivateRedis

_END = b"end"


@contextmanager
def notices(server: PrivateRedis) -> Iterator[list[str]]:
    """A list that contains, after the block, the changes that were published during it."""
    found: list[str] = []
    subscription = server.client.pubsub()  # type: ignore[no-untyped-call]
    subscription.subscribe(keys.CHANGES)
    subscription.get_message(timeout=60)
    yield found
    server.client.publish(keys.CHANGES, _END)
    while (message := subscription.get_message(timeout=60)) is not None and message["data"] != _END:
        found.append(message["data"].decode())
    subscription.close()


class Clock:
    """Checks that a time in Redis was set since this clock was created, relative to the server's time."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self.started = self._now()

    def is_in(self, milliseconds: float, at: Any) -> bool:
        """Whether ``at``, in ms since 1970, is this many ms after a moment between the clock's creation and now."""
        return self.started + milliseconds <= float(at) <= self._now() + milliseconds

    def expires_in(self, milliseconds: float, name: str) -> bool:
        """Whether the key expires this many ms after such a moment (+-1, since PTTL is rounded)."""
        before = self._now()
        left = self._redis.pttl(name)
        now = self._now()
        return bool(before + left - 1 <= now + milliseconds and now + left + 1 >= self.started + milliseconds)

    def _now(self) -> int:
        seconds, microseconds = self._redis.time()
        return int(seconds * 1000 + microseconds // 1000)


async def waiting(store: Store) -> dict[Queue, int]:
    """How many jobs wait for a worker, by queue."""
    return {queue: state.waiting for queue, state in (await store.workers.queues()).items()}


def drop_classifier(redis: Any, id: str) -> None:
    """As the store does to make room, except that the bytes stay."""
    redis.hdel(keys.CLASSIFIERS, id)
    redis.zrem(keys.CLASSIFIERS_USED, id)


def classifier_of(server: PrivateRedis, id: str) -> bytes | None:
    """The bytes of an episode's classifier; None if it has none."""
    entry = server.client.hget(keys.CLASSIFIERS, id)
    return Objects.open(server.settings).get(name_in(entry)) if isinstance(entry, bytes) else None


def object_files(server: PrivateRedis, id: str) -> list[Path]:
    """The files of the object store that belong to the episode."""
    return sorted(server.settings.objects_dir.glob(f"*/{id}.*"))
