"""How much of what clients send an app process holds at a time, in all and for each key."""

from collections import Counter

from app.http.problems import BUSY, TOO_MUCH_AT_ONCE, Problem

# No key takes the whole of it, so that one client who sends all it may leaves room for the others.
SHARE = 2
TRY_AGAIN = {"Retry-After": "1"}


class BytesInFlight:
    """The bytes of request bodies that are being received or worked on."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_key: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self._by_key.total()

    def reserve(self, key: str, size: int) -> None:
        """Raises Problem if there is no room for so many bytes more."""
        if self._by_key[key] + size > self._most // SHARE:
            text = f"the requests of this key that are not answered yet have {self._by_key[key]} bytes already"
            raise Problem(TOO_MUCH_AT_ONCE, text, headers=TRY_AGAIN)
        if self.total + size > self._most:
            raise Problem(BUSY, "too many bytes of requests are being worked on", headers=TRY_AGAIN)
        self._by_key[key] += size

    def release(self, key: str, size: int) -> None:
        self._by_key[key] -= size
        if not self._by_key[key]:
            del self._by_key[key]
