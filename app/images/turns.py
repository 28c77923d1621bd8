"""Whose images are decoded next: keys take turns, however many requests and images each of them has."""

import asyncio
from collections import OrderedDict, deque

# A key whose last turn took longer, in processor time, is a slow one. Most images take less than a tenth of this.
SLOW_S = 0.25


class Turns:
    """Turns at a few processes. Slow keys leave one process to the others, as each of their turns may take seconds."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        # The keys of the turns in progress.
        self._taken: list[str] = []
        # In the order of the keys' turns; each with its waiting requests, first come, first served.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._slow: set[str] = set()

    async def wait(self, key: str) -> None:
        """Returns when it is this key's turn, which lasts until ``end``."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(future)
        self._next()
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._next()  # forgets it
            else:
                self.end(key)
            raise

    def end(self, key: str, seconds: float = 0.0) -> None:
        """Ends a turn of this key, which took this much processor time."""
        self._taken.remove(key)
        if seconds > SLOW_S:
            self._slow.add(key)
        elif seconds:
            self._slow.discard(key)
        self._next()

    def _next(self) -> None:
        while len(self._taken) < self._processes and (key := self._whose()) is not None:
            requests = self._waiting[key]
            requests.popleft().set_result(None)
            self._taken.append(key)
            self._waiting.move_to_end(key)

    def _whose(self) -> str | None:
        """The key whose turn is next; None if none may have one now."""
        slow = sum(key in self._slow for key in self._taken)
        for key, requests in list(self._waiting.items()):
            while requests and requests[0].cancelled():
                requests.popleft()
            if not requests:
                del self._waiting[key]
            elif key not in self._slow or slow < self._processes - 1:
                return key
        return None
