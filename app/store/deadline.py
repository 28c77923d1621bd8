"""How long a request waits for Redis: one limit holds for everything that it asks for.

A server that hangs reports no error, and the client library tries again: each command of a request would wait anew, and
a request be held for minutes.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

# Long enough for a restart of Redis; a longer outage is reported.
REQUEST_S = 3.0
TOO_LATE = "Redis did not answer in time"
CLOSED = "the handler is closed"  # in the text of uvloop's RuntimeError


class _Limit:
    def __init__(self, seconds: float) -> None:
        self.left = seconds


_current: ContextVar[_Limit | None] = ContextVar("limit", default=None)


@contextmanager
def limited(seconds: float | None = None) -> Iterator[None]:
    """Inside the block, everything in ``waiting`` may take this many seconds together; by default REQUEST_S."""
    token = _current.set(_Limit(REQUEST_S if seconds is None else seconds))
    try:
        yield
    finally:
        _current.reset(token)


@asynccontextmanager
async def waiting() -> AsyncIterator[None]:
    """Around whatever waits for Redis. Raises redis.TimeoutError when nothing is left of the limit around it; without
    one, each block has a limit of its own. Raises redis.ConnectionError for what uvloop raises of a connection that was
    just closed."""
    limit = _current.get() or _Limit(REQUEST_S)
    if limit.left <= 0:
        raise RedisTimeoutError(TOO_LATE)
    started = time.monotonic()
    try:
        async with asyncio.timeout(limit.left) as timeout:
            yield
    except TimeoutError as error:
        if not timeout.expired():
            raise
        limit.left = 0.0  # a timer may be a little early
        raise RedisTimeoutError(TOO_LATE) from error
    except RuntimeError as error:
        if CLOSED not in str(error):
            raise
        raise RedisConnectionError(str(error)) from error
    finally:
        limit.left -= time.monotonic() - started


class _LimitedPipeline(Pipeline):
    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        async with waiting():
            return await super().execute(raise_on_error)


class LimitedRedis(Redis):
    """A client whose commands and pipelines wait no longer than the limit allows, with all that the library tries
    again."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        async with waiting():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _LimitedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
