"""Redis' notices of changed records, passed on to everything in this process that waits for one."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis.asyncio import Redis

from app.store.errors import UNAVAILABLE
from app.store.keys import CHANGES

log = logging.getLogger(__name__)
RECONNECT_S = 0.25


class Notifications:
    """One subscription for any number of waiters.

    ``on_change`` is called at once with each change, ``"<kind>:<id>"``, and with None when notices may have been lost.
    """

    def __init__(self, redis: Redis, on_change: Callable[[str | None], None] = lambda what: None) -> None:
        self._redis = redis
        self._on_change = on_change
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._listen(), name="notifications")

    async def stop(self) -> None:
        # A cancellation is lost if the connection is established just then (asyncio.wait_for before Python 3.12).
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0.1)

    @contextmanager
    def waiting(self, what: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change of ``"<kind>:<id>"``. Enter before the record is read, and clear the
        event before each time it is read: then no change is missed."""
        event = asyncio.Event()
        self._waiters[what].add(event)
        try:
            yield event
        finally:
            self._waiters[what].discard(event)
            if not self._waiters[what]:
                del self._waiters[what]

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as subscription:
                    await subscription.subscribe(CHANGES)
                    async for message in subscription.listen():
                        self._notify(message["type"], message["data"])
            except Exception as error:  # all waiters depend on this task: it must not end
                self._on_change(None)
                unknown = not isinstance(error, UNAVAILABLE)
                log.warning("subscription lost, connecting again: %s", error, exc_info=unknown)
            await asyncio.sleep(RECONNECT_S)

    def _notify(self, type: str, data: bytes | int) -> None:
        if type == "message" and isinstance(data, bytes):
            self._on_change(data.decode())
            for event in self._waiters.get(data.decode(), ()):
                event.set()
        elif type == "subscribe":
            # The client library may have reconnected by itself, and notices were lost meanwhile: all read again.
            self._on_change(None)
            for events in self._waiters.values():
                for event in events:
                    event.set()
