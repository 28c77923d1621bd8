"""Lookups share round trips, and no cached answer precedes the last change."""

import asyncio
import time

import pytest
import redis.exceptions

from app.store import lookup_cache
from app.store.lookup_cache import Lookup, LookupCache


class SlowRedis:
    """Answers each call when the test allows it, with the number of the round in every field."""

    def __init__(self) -> None:
        self.rounds: list[list[str]] = []
        self.go = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def evalsha(self, digest: str, count: int, *names: str) -> list[bytes]:
        assert count == len(names)
        self.rounds.append(list(names))
        number = len(self.rounds)
        await self.go.acquire()
        if self.error is not None:
            raise self.error
        return [str(number).encode()] * (len(names) // 2 * 3)


def opened() -> tuple[SlowRedis, LookupCache]:
    server = SlowRedis()
    return server, LookupCache(server)  # type: ignore[arg-type]


async def start_lookups(lookups: LookupCache, *questions: tuple[str, str]) -> list[asyncio.Task[Lookup]]:
    """Starts a task for each lookup; returns once all have sent it."""
    tasks = [asyncio.create_task(lookups.lookup(*question)) for question in questions]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def test_lookups_during_a_round_are_answered_by_one_later_round() -> None:
    async def body() -> None:
        server, lookups = opened()
        first = await start_lookups(lookups, ("a", "x"), ("b", "x"))
        later = await start_lookups(lookups, ("d", "x"), ("d", "x"), ("c", "y"))
        assert len(server.rounds) == 1
        server.go.release()
        server.go.release()
        found = [(await one).state for one in (*first, *later)]
        assert found == [b"1", b"1", b"2", b"2", b"2"]
        assert [len(names) // 2 for names in server.rounds] == [2, 2]
        await lookups.close()

    asyncio.run(body())


def test_a_cancelled_lookup_does_not_affect_others() -> None:
    async def body() -> None:
        server, lookups = opened()
        leaving, staying = await start_lookups(lookups, ("a", "x"), ("a", "x"))
        leaving.cancel()
        server.go.release()
        assert (await staying).digest == b"1"
        await lookups.close()

    asyncio.run(body())


def test_an_outage_is_raised_to_all_waiting_lookups_and_to_no_later_ones() -> None:
    async def body() -> None:
        server, lookups = opened()
        server.error = redis.exceptions.ConnectionError("unavailable")
        tasks = await start_lookups(lookups, ("a", "x"), ("b", "y"))
        server.go.release()
        for task in tasks:
            with pytest.raises(redis.exceptions.ConnectionError):
                await task
        server.error = None
        server.go.release()
        assert (await lookups.lookup("a", "x")).state == b"2"
        await lookups.close()

    asyncio.run(body())


def test_an_answer_is_cached_until_its_key_or_episode_changes() -> None:
    async def body() -> None:
        server, lookups = opened()
        server.go = asyncio.Semaphore(9)

        async def round_of(key: str, episode: str) -> bytes | None:
            return (await lookups.lookup(key, episode)).state

        assert [await round_of("a", "x"), await round_of("a", "x")] == [b"1", b"1"]
        lookups.invalidate("episode:y")
        assert await round_of("a", "x") == b"1"
        lookups.invalidate("episode:x")
        assert [await round_of("a", "x"), await round_of("a", "x")] == [b"2", b"2"]
        lookups.invalidate("key:a")
        assert await round_of("a", "x") == b"3"
        lookups.invalidate(None)
        assert await round_of("a", "x") == b"4"
        await lookups.close()

    asyncio.run(body())


@pytest.mark.parametrize("what", ["episode:x", "key:a", None])
def test_an_answer_is_not_cached_if_it_may_precede_a_change(what: str | None) -> None:
    async def body() -> None:
        server, lookups = opened()
        (asking,) = await start_lookups(lookups, ("a", "x"))
        lookups.invalidate(what)
        server.go.release()
        server.go.release()
        assert (await asking).state == b"1"
        assert (await lookups.lookup("a", "x")).state == b"2"
        await lookups.close()

    asyncio.run(body())


def test_a_cached_answer_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        server, lookups = opened()
        server.go = asyncio.Semaphore(9)
        now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        seen = []
        for now in (0.0, 1.0, 1.01):  # noqa: B007 (the clock reads it)
            seen.append((await lookups.lookup("a", "x")).state)
        assert seen == [b"1", b"1", b"2"]
        await lookups.close()

    asyncio.run(body())


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        server, lookups = opened()
        server.go = asyncio.Semaphore(99)
        monkeypatch.setattr(lookup_cache, "MAX_ENTRIES", 4)
        for number in range(10):
            await lookups.lookup("a", str(number))
            assert len(lookups._entries) <= 5
        await lookups.close()

    asyncio.run(body())


def test_closing_ends_waiting_lookups() -> None:
    async def body() -> None:
        _, lookups = opened()
        (waiting,) = await start_lookups(lookups, ("a", "x"))
        (not_sent,) = await start_lookups(lookups, ("b", "x"))
        await lookups.close()
        for task in (waiting, not_sent):
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(body())
