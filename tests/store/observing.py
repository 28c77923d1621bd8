"""What a call to the store does in Redis: the notices that it publishes, and the times that it sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from app.store import keys
from tests.conftest import PrivateRedis

_END = b"end"


@contextmanager
def notices(server: PrivateRedis) -> Iterator[list[str]]:
    """Fills the list, when the block ends, with the changes that were published in it."""
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
    """Whether a time was set in a block, to a duration after the time of Redis then."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self.started = self._now()

    def is_in(self, milliseconds: float, at: Any) -> bool:
        """``at``: ms since 1970, at this many ms after a moment between the making of this clock and now."""
        return self.started + milliseconds <= float(at) <= self._now() + milliseconds

    def expires_in(self, milliseconds: float, name: str) -> bool:
        """Whether the key was set to expire this many ms after such a moment (+-1: PTTL is rounded)."""
        before = self._now()
        left = self._redis.pttl(name)
        now = self._now()
        return bool(before + left - 1 <= now + milliseconds and now + left + 1 >= self.started + milliseconds)

    def _now(self) -> int:
        seconds, microseconds = self._redis.time()
        return int(seconds * 1000 + microseconds // 1000)
