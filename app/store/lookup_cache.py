"""Whether keys still count and what episodes are at: all that is asked at a time, in one round trip, or from what was
read less than a second ago and has not changed since."""

import asyncio
import time
from typing import Any, NamedTuple

from redis.asyncio import Redis

from app.store import keys, scripts


class Standing(NamedTuple):
    """What Redis holds of a key and of an episode; None: not there (any more)."""

    digest: bytes | None
    revoked: bytes | None
    state: bytes | None


Question = tuple[str, str]
Kept = tuple[bytes | None, ...]
# A round trip beyond this many would keep Redis from the others for long.
MOST = 256
# Redis tells of each change within a millisecond; should a notice be lost, an answer is no older than this. (To ask
# each time takes longer than it seems: Redis syncs each write to the disk, 4 ms, and answers nobody meanwhile.)
KEPT_S = 1.0
MOST_KEPT = 4096


class Standings:
    """Who asks while Redis answers others waits for the next round, which is for all of those together; a single one
    costs as much as many. ``changed`` is to be told of every change of a key or episode that is there. (New ones have
    ids that nobody can have asked for.)"""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(scripts.STANDINGS)
        self._asked: dict[Question, asyncio.Future[Standing]] = {}
        self._task: asyncio.Task[None] | None = None
        # By "key:<id>" and "episode:<id>": when it was asked for, and the answer.
        self._kept: dict[str, tuple[float, Kept]] = {}
        # What has changed since the round began that is under way.
        self._meanwhile: set[str | None] = set()

    def changed(self, what: str | None) -> None:
        """``"<kind>:<id>"`` is not what it was; None: anything may have changed."""
        if what is None:
            self._kept.clear()
        else:
            self._kept.pop(what, None)
        if self._task is not None:
            self._meanwhile.add(what)

    async def of(self, key_id: str, episode: str) -> Standing:
        """Either may be empty. May raise ``errors.UNAVAILABLE``."""
        kept = self._still_kept(key_id, episode)
        if kept is not None:
            return kept
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

    def _still_kept(self, key_id: str, episode: str) -> Standing | None:
        oldest = time.monotonic() - KEPT_S
        of_key, of_episode = self._kept.get(f"key:{key_id}"), self._kept.get(f"episode:{episode}")
        if of_key is None or of_episode is None or min(of_key[0], of_episode[0]) < oldest:
            return None
        return Standing(*of_key[1], *of_episode[1])

    def _keep(self, question: Question, asked_at: float, answer: Standing) -> None:
        if None in self._meanwhile:
            return
        if len(self._kept) >= MOST_KEPT:  # nearly all of it is too old
            self._kept.clear()
        for what, parts in ((f"key:{question[0]}", answer[:2]), (f"episode:{question[1]}", answer[2:])):
            if what not in self._meanwhile:
                self._kept[what] = (asked_at, parts)

    async def _ask(self) -> None:
        try:
            while self._asked:
                questions = list(self._asked)[:MOST]
                await self._answer({question: self._asked.pop(question) for question in questions})
        finally:
            self._task = None

    async def _answer(self, asked: dict[Question, asyncio.Future[Standing]]) -> None:
        self._meanwhile.clear()
        asked_at = time.monotonic()
        names = [name for key, episode in asked for name in (keys.key(key), keys.record("episode", episode))]
        try:
            found: list[Any] = await self._script(names)
        except BaseException as error:
            for future in asked.values():
                if isinstance(error, Exception):
                    future.set_exception(error)
                    future.exception()  # seen, even if nobody is left who waits for it
                else:
                    future.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for at, (question, future) in enumerate(asked.items()):
            answer = Standing(*found[3 * at : 3 * at + 3])
            self._keep(question, asked_at, answer)
            future.set_result(answer)
