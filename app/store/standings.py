"""Whether keys still count and what episodes are at: all that is asked at a time, in one round trip."""

import asyncio
from typing import Any, NamedTuple

from redis.asyncio import Redis

from app.store import keys, scripts


class Standing(NamedTuple):
    """What Redis holds of a key and of an episode at one moment; None: not there (any more)."""

    digest: bytes | None
    revoked: bytes | None
    state: bytes | None


Question = tuple[str, str]
# A round trip beyond this many would keep Redis from the others for long.
MOST = 256


class Standings:
    """Nothing is kept: each answer was read after its question was put. Who asks while Redis answers others waits for
    the next round, which is for all of those together; a single one costs as much as many."""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(scripts.STANDINGS)
        self._asked: dict[Question, asyncio.Future[Standing]] = {}
        self._task: asyncio.Task[None] | None = None

    async def of(self, key_id: str, episode: str) -> Standing:
        """Either may be empty. May raise ``errors.UNAVAILABLE``."""
        question = (key_id, episode)
        answer = self._asked.get(question)
        if answer is None:
            answer = self._asked[question] = asyncio.get_running_loop().create_future()
            if self._task is None:
                self._task = asyncio.create_task(self._ask(), name="standings")
        # Shielded: one client that hangs up does not take the answer from the others.
        return await asyncio.shield(answer)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for answer in self._asked.values():
            answer.cancel()

    async def _ask(self) -> None:
        try:
            while self._asked:
                questions = list(self._asked)[:MOST]
                await self._answer({question: self._asked.pop(question) for question in questions})
        finally:
            self._task = None

    async def _answer(self, asked: dict[Question, asyncio.Future[Standing]]) -> None:
        names = [name for key, episode in asked for name in (keys.key(key), keys.record("episode", episode))]
        try:
            found: list[Any] = await self._script(names)
        except BaseException as error:
            for answer in asked.values():
                if isinstance(error, Exception):
                    answer.set_exception(error)
                    answer.exception()  # seen, even if nobody is left who waits for it
                else:
                    answer.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for at, answer in enumerate(asked.values()):
            answer.set_result(Standing(*found[3 * at : 3 * at + 3]))
