"""Many questions, few round trips, and no answer from before the last change."""

import asyncio
import time
from typing import Any

import pytest
import redis.exceptions

from app.store import lookup_cache
from app.store.lookup_cache import Standing, Standings


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
        later = await asked(standings, ("d", "x"), ("d", "x"), ("c", "y"))
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


def test_an_answer_is_kept_until_its_key_or_episode_changes() -> None:
    async def body() -> None:
        server, standings = opened()
        server.go = asyncio.Semaphore(9)

        async def round_of(key: str, episode: str) -> bytes | None:
            return (await standings.of(key, episode)).state

        assert [await round_of("a", "x"), await round_of("a", "x")] == [b"1", b"1"]
        standings.changed("episode:y")
        assert await round_of("a", "x") == b"1"
        standings.changed("episode:x")
        assert [await round_of("a", "x"), await round_of("a", "x")] == [b"2", b"2"]
        standings.changed("key:a")
        assert await round_of("a", "x") == b"3"
        standings.changed(None)
        assert await round_of("a", "x") == b"4"
        await standings.close()

    asyncio.run(body())


@pytest.mark.parametrize("what", ["episode:x", "key:a", None])
def test_an_answer_is_not_kept_if_it_may_be_from_before_a_change(what: str | None) -> None:
    async def body() -> None:
        server, standings = opened()
        (asking,) = await asked(standings, ("a", "x"))
        standings.changed(what)
        server.go.release()
        server.go.release()
        assert (await asking).state == b"1"
        assert (await standings.of("a", "x")).state == b"2"
        await standings.close()

    asyncio.run(body())


def test_an_answer_is_not_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        server, standings = opened()
        server.go = asyncio.Semaphore(9)
        now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        seen = []
        for now in (0.0, 1.0, 1.01):  # noqa: B007 (the clock reads it)
            seen.append((await standings.of("a", "x")).state)
        assert seen == [b"1", b"1", b"2"]
        await standings.close()

    asyncio.run(body())


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        server, standings = opened()
        server.go = asyncio.Semaphore(99)
        monkeypatch.setattr(lookup_cache, "MOST_KEPT", 4)
        for number in range(10):
            await standings.of("a", str(number))
            assert len(standings._kept) <= 5
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
