"""Many questions, few round trips, and no answer older than its question."""

import asyncio
from typing import Any

import pytest
import redis.exceptions

from app.store.standings import Standing, Standings


class SlowRedis:
    """Answers each call only when told to, with the number of the round in every field."""

    def __init__(self) -> None:
        self.rounds: list[list[str]] = []
        self.go = asyncio.Semaphore(0)
        self.error: Exception | None = None

    def register_script(self, script: str) -> Any:
        return self._run

    async def _run(self, names: list[str]) -> list[bytes]:
        self.rounds.append(names)
        number = len(self.rounds)
        await self.go.acquire()
        if self.error is not None:
            raise self.error
        return [str(number).encode()] * (len(names) // 2 * 3)


def opened() -> tuple[SlowRedis, Standings]:
    server = SlowRedis()
    return server, Standings(server)  # type: ignore[arg-type]


async def asked(standings: Standings, *questions: tuple[str, str]) -> list[asyncio.Task[Standing]]:
    """Each by a task of its own, once they all have asked."""
    tasks = [asyncio.create_task(standings.of(*question)) for question in questions]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def test_what_is_asked_meanwhile_is_answered_by_one_later_round() -> None:
    async def body() -> None:
        server, standings = opened()
        first = await asked(standings, ("a", "x"), ("b", "x"))
        later = await asked(standings, ("a", "x"), ("a", "x"), ("c", "y"))
        assert len(server.rounds) == 1
        server.go.release()
        server.go.release()
        found = [(await one).state for one in (*first, *later)]
        assert found == [b"1", b"1", b"2", b"2", b"2"]
        assert [len(names) // 2 for names in server.rounds] == [2, 2]
        await standings.close()

    asyncio.run(body())


def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    async def body() -> None:
        server, standings = opened()
        leaving, staying = await asked(standings, ("a", "x"), ("a", "x"))
        leaving.cancel()
        server.go.release()
        assert (await staying).digest == b"1"
        await standings.close()

    asyncio.run(body())


def test_an_outage_is_told_to_all_who_asked_and_to_nobody_after_it() -> None:
    async def body() -> None:
        server, standings = opened()
        server.error = redis.exceptions.ConnectionError("away")
        tasks = await asked(standings, ("a", "x"), ("b", "y"))
        server.go.release()
        for task in tasks:
            with pytest.raises(redis.exceptions.ConnectionError):
                await task
        server.error = None
        server.go.release()
        assert (await standings.of("a", "x")).state == b"2"
        await standings.close()

    asyncio.run(body())


def test_closing_ends_what_waits() -> None:
    async def body() -> None:
        _, standings = opened()
        (waiting,) = await asked(standings, ("a", "x"))
        (not_sent,) = await asked(standings, ("b", "x"))
        await standings.close()
        for task in (waiting, not_sent):
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(body())
