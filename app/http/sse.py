"""Follows the changes of a record: for a limited time, or as server-sent events."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TypeVar

from fastapi.sse import ServerSentEvent
from pydantic import BaseModel

from app.http.problems import GONE, Problem
from app.store.errors import Gone, NotFound
from app.store.records import EpisodeRecord, TrainingRecord

MAX_WAIT_S = 60
WAIT = re.compile(r"^\s*wait\s*=\s*\"?(\d{1,9})\"?\s*$", re.IGNORECASE)
Record = TypeVar("Record", EpisodeRecord, TrainingRecord)


def preferred_wait(prefer: str | None) -> int:
    """Seconds of ``Prefer: wait=N``, at most 60; 0 without one (RFC 7240: unknown preferences are ignored)."""
    for preference in re.split(r"[,;]", prefer or ""):
        found = WAIT.match(preference)
        if found:
            return min(MAX_WAIT_S, int(found.group(1)))
    return 0


async def follow(records: AsyncIterator[Record], draining: asyncio.Event) -> AsyncIterator[Record]:
    """``records`` until they end or the app drains."""
    stop = asyncio.create_task(draining.wait())
    step: asyncio.Future[Record | None] | None = None
    try:
        while True:
            step = asyncio.ensure_future(_next(records))
            await asyncio.wait({step, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                return
            record = step.result()
            if record is None:
                return
            yield record
    finally:
        for task in (stop, step):
            if task is not None and not task.done():
                task.cancel()


async def _next(records: AsyncIterator[Record]) -> Record | None:
    return await anext(records, None)


async def last_within(records: AsyncIterator[Record], seconds: float, draining: asyncio.Event) -> Record | None:
    """The last record within this time; None if no record arrived."""
    last = None
    try:
        async with asyncio.timeout(seconds), aclosing(follow(records, draining)) as following:  # type: ignore[type-var]
            async for record in following:
                last = record
    except TimeoutError:
        return last
    return last


async def events(
    records: AsyncIterator[Record],
    draining: asyncio.Event,
    *,
    running: frozenset[str],
    progress: Callable[[Record], BaseModel],
    finished: Callable[[Record], BaseModel],
) -> AsyncIterator[ServerSentEvent]:
    """An event ``progress`` for each change, then one named after the record's final state."""
    number = 0
    try:
        async for record in follow(records, draining):
            number += 1
            if record.state in running:
                yield ServerSentEvent(event="progress", id=str(number), data=progress(record))
            else:
                yield ServerSentEvent(event=record.state, id=str(number), data=finished(record))
    except (Gone, NotFound) as error:
        yield ServerSentEvent(event="gone", data=Problem(GONE, str(error)).body())
