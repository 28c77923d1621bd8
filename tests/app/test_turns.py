"""Keys take turns at the decoding processes; those whose images are slow leave one process to the others."""

import asyncio
from collections.abc import Awaitable, Callable

from app.images.turns import SLOW_S, Turns

SLOW, QUICK = SLOW_S + 0.01, 0.01


class Queue:
    """Requests that wait for their turns; ``had`` lists the keys in the order of their turns."""

    def __init__(self, processes: int) -> None:
        self.turns = Turns(processes)
        self.had: list[str] = []

    async def ask(self, *keys: str) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self._wait(key)) for key in keys]
        await settled()
        return tasks

    async def end(self, key: str, seconds: float = QUICK) -> None:
        self.turns.end(key, seconds)
        await settled()

    async def _wait(self, key: str) -> None:
        await self.turns.wait(key)
        self.had.append(key)


async def settled() -> None:
    """Lets the other tasks go on until they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    asyncio.run(main())


def test_a_key_with_many_requests_waits_for_the_turns_of_others() -> None:
    async def body() -> None:
        queue = Queue(1)
        await queue.ask("a", "a", "a", "a", "b", "c", "b")
        for _ in range(6):
            await queue.end(queue.had[-1])
        assert queue.had == ["a", "a", "b", "c", "a", "b", "a"]

    run(body)


def test_all_processes_are_used() -> None:
    async def body() -> None:
        queue = Queue(2)
        await queue.ask("a", "a", "a")
        assert queue.had == ["a", "a"]

    run(body)


def test_slow_keys_leave_one_process_to_others_until_they_are_quick_again() -> None:
    async def body() -> None:
        queue = Queue(2)
        await queue.ask("a", "b")
        await queue.end("a", SLOW)
        await queue.end("b", SLOW)
        await queue.ask("a", "b", "a")
        assert queue.had[2:] == ["a"]
        await queue.ask("c")
        assert queue.had[3:] == ["c"]
        await queue.end("c")
        assert queue.had[4:] == []
        await queue.end("a")  # this one was quick
        assert sorted(queue.had[4:]) == ["a", "b"]

    run(body)


def test_a_request_that_is_given_up_takes_no_turn_and_frees_one_that_it_had() -> None:
    async def body() -> None:
        queue = Queue(1)
        (_,), (given_up,), (_,) = [await queue.ask(key) for key in "abc"]
        given_up.cancel()
        await settled()
        await queue.end("a")
        assert queue.had == ["a", "c"]
        (late,) = await queue.ask("d")
        queue.turns.end("c")  # now it is the turn of "d", which is given up before it notices
        late.cancel()
        await settled()
        await queue.ask("e")
        assert queue.had == ["a", "c", "e"]

    run(body)
