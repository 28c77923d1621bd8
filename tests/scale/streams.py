"""Many event streams at a time, each of them a connection that only reads."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.waiting import PATIENCE_S

# How many are opened at a time.
OPENING = 20


class Streams:
    """Follows these episodes while the block runs, in a thread of its own; ``events``: how many came after the
    first one of each."""

    def __init__(self, url: str, token: str, ids: Sequence[str]) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._head = f"Host: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n"
        self._ids = ids
        self._open = threading.Semaphore(0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._follow_all(),))
        self._ended = asyncio.Event()
        self._opening = asyncio.Semaphore(OPENING)
        self.events = 0

    def __enter__(self) -> Self:
        self._thread.start()
        for _ in self._ids:
            assert self._open.acquire(timeout=PATIENCE_S), "a stream was not opened"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    async def _follow_all(self) -> None:
        following = [asyncio.create_task(self._follow(id)) for id in self._ids]
        await self._ended.wait()
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)

    async def _follow(self, id: str) -> None:
        async with self._opening:
            reader, writer = await asyncio.open_connection(*self._address)
            writer.write(f"GET /episodes/{id}/events HTTP/1.1\r\n{self._head}".encode())
            while not (await reader.readline()).startswith(b"event: progress"):
                pass
            self._open.release()
        try:
            while line := await reader.readline():
                self.events += line.startswith(b"event: ")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
