"""Limits how much an app process has in hand at a time: event streams of each key; and bodies of requests: their size,
how long they take to arrive, and how many bytes of them are kept in memory, in total and for each key."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.types import Message, Receive, Scope

from app.http.problems import BODY_TOO_LARGE, BODY_TOO_SLOW, BUSY, TOO_MUCH_AT_ONCE, Problem, megabytes

# How long a body may pause, and how far it may fall behind this rate in all (1 Mbit/s): of a body that stops arriving,
# what has arrived takes up memory.
BEHIND_S = 30.0
BYTES_PER_S = 2**17
# How much of a body that is too large is received and dropped, as a multiple of what is accepted. A client that is cut
# off while it sends sees a broken connection, and behind a proxy a 502, instead of the answer that says why.
DROPPED = 4
# One key may use at most half of the total, so that a client at its limit leaves room for the others.
SHARE = 2
RETRY_AFTER = {"Retry-After": "1"}


class BytesInFlight:
    """The bytes of request bodies, and of their decoded images, that are being received or processed."""

    def __init__(self, max_bytes: int, changed: Callable[[int], object] = lambda total: None) -> None:
        """``changed`` is called with the total after each change."""
        self._max_bytes = max_bytes
        self._changed = changed
        self._by_key: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self._by_key.total()

    def reserve(self, key: str, size: int) -> None:
        """Raises Problem if ``size`` more bytes would exceed a limit."""
        self.check(key, size)
        self._by_key[key] += size
        self._changed(self.total)

    def check(self, key: str, size: int) -> None:
        """Raises Problem if there is no room for ``size`` more bytes."""
        own, most = self._by_key[key] + size, self._max_bytes // SHARE
        if own > most:
            text = f"with this one, the unanswered requests of this key have {megabytes(own)}, "
            text += f"at most {megabytes(most)} at a time are accepted: wait for an answer"
            raise Problem(TOO_MUCH_AT_ONCE, text, headers=RETRY_AFTER)
        if self.total + size > self._max_bytes:
            text = f"with this one, the requests in progress have {megabytes(self.total + size)}, "
            text += f"at most {megabytes(self._max_bytes)} are accepted: try again in a moment"
            raise Problem(BUSY, text, headers=RETRY_AFTER)

    def release(self, key: str, size: int) -> None:
        self._by_key[key] -= size
        if not self._by_key[key]:
            del self._by_key[key]
        self._changed(self.total)


class Upload:
    """The body of one request. The bytes that have arrived, and those of its images, are counted until it is let go.

    They are counted from the first read of a body, which comes after authentication. What a client announces and does
    not send is not: otherwise, connections without any traffic would use up the limit.
    """

    def __init__(self, scope: Scope, receive: Receive, in_flight: BytesInFlight, max_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._in_flight = in_flight
        self._max_bytes = max_bytes
        self._announced = _announced(scope)
        self._key = ""
        self._received = 0
        self._reserved = 0
        self._started = 0.0
        self._complete = False

    def refusal(self) -> Problem | None:
        """The problem of a body that is too large according to its Content-Length."""
        return self._too_large(megabytes(self._announced)) if self._announced > self._max_bytes else None

    async def receive(self) -> Message:
        """The next message of the request. Raises Problem if its body is too large or too slow, or if there is no room
        for it."""
        if self._complete:  # only a disconnect can follow, for which an event stream waits without a timeout
            return await self._receive()
        if not self._received:
            self._know_key()
            self._in_flight.check(self._key, self._announced)  # a client should not send in vain
        message = await self._next()
        if self._received > self._max_bytes:
            await self.drop()
            raise self._too_large(f"more than {megabytes(self._max_bytes)}")
        self.hold(len(message.get("body", b"")))
        return message

    def hold(self, size: int) -> None:
        """Counts more bytes that the request takes, of its decoded images. Raises Problem if there is no room."""
        if not self._reserved:  # perhaps it has no body
            self._know_key()
        self._in_flight.reserve(self._key, size)
        self._reserved += size

    def let_go(self, *, kept: int = 0) -> None:
        """No more than ``kept`` of its bytes are still needed."""
        self._in_flight.release(self._key, self._reserved - kept)
        self._reserved = kept

    def _know_key(self) -> None:
        self._key = self._scope.get("state", {}).get("key", "")

    async def drop(self) -> None:
        """Receives and drops the rest, or as much of it as is worthwhile."""
        most = self._received + DROPPED * self._max_bytes
        with suppress(Problem):
            while not self._complete and self._received <= most:
                await self._next()

    async def _next(self) -> Message:
        self._started = self._started or time.monotonic()
        behind = time.monotonic() - self._started - self._received / BYTES_PER_S
        try:
            async with asyncio.timeout(BEHIND_S - max(0.0, behind)):
                message = await self._receive()
        except TimeoutError:
            text = f"only {megabytes(self._received)} of the body arrived in {time.monotonic() - self._started:.0f} s"
            raise Problem(BODY_TOO_SLOW, text, headers={"Connection": "close"}) from None
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message

    def _too_large(self, sent: str) -> Problem:
        text = (
            f"the request has {sent}, at most {megabytes(self._max_bytes)} are accepted: send fewer or smaller images"
        )
        return Problem(BODY_TOO_LARGE, text, headers={"Connection": "close"})


def _announced(scope: Scope) -> int:
    """Content-Length; 0 without one."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length[:20]) if length.isdigit() else 0


class Streams:
    """The event streams that are open."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_key: Counter[str] = Counter()

    @contextmanager
    def one_more(self, key: str) -> Iterator[None]:
        """Counts a stream of this key during the block. Raises Problem if the key has as many as it may have."""
        if self._by_key[key] >= self._most:
            text = f"a key may follow {self._most} episodes and runs at a time: close an event stream first"
            raise Problem(TOO_MUCH_AT_ONCE, text, headers=RETRY_AFTER)
        self._by_key[key] += 1
        try:
            yield
        finally:
            self._by_key[key] -= 1
            if not self._by_key[key]:
                del self._by_key[key]
