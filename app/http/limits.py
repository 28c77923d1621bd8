"""Limits how much an app process has in hand at a time: bytes of requests in total and for each key, and event streams
of each key."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.http.problems import BUSY, TOO_MUCH_AT_ONCE, Problem, megabytes

# One key may use at most half of the total, so that a client at its limit leaves room for the others.
SHARE = 2
RETRY_AFTER = {"Retry-After": "1"}


class BytesInFlight:
    """The bytes of request bodies that are being received or processed."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._by_key: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self._by_key.total()

    def reserve(self, key: str, size: int) -> None:
        """Raises Problem if ``size`` more bytes would exceed a limit."""
        own, most = self._by_key[key] + size, self._max_bytes // SHARE
        if own > most:
            text = f"with this one, the unanswered requests of this key have {megabytes(own)}, "
            text += f"at most {megabytes(most)} at a time are accepted: wait for an answer"
            raise Problem(TOO_MUCH_AT_ONCE, text, headers=RETRY_AFTER)
        if self.total + size > self._max_bytes:
            text = f"with this one, the requests in progress have {megabytes(self.total + size)}, "
            text += f"at most {megabytes(self._max_bytes)} are accepted: try again in a moment"
            raise Problem(BUSY, text, headers=RETRY_AFTER)
        self._by_key[key] += size

    def release(self, key: str, size: int) -> None:
        self._by_key[key] -= size
        if not self._by_key[key]:
            del self._by_key[key]


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
