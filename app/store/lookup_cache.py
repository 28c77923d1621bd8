"""Lookups for each request: whether an API key is still valid, and the state of an episode.

Those that are asked for at the same time share one round trip, and an answer is used again for a second unless a notice
says that it has changed."""

import time
from typing import Any, NamedTuple

from redis.asyncio import Redis

from app.store import keys
from app.store.batches import Batches
from app.store.registry import run_async, script


class Lookup(NamedTuple):
    """What Redis stores of a key and of an episode; None where there is nothing (any more)."""

    digest: bytes | None
    revoked: bytes | None
    state: bytes | None


Question = tuple[str, str]
Fields = tuple[bytes | None, ...]
_LOOKUP = script("lookup")
MAX_BATCH = 256
# A notice of each change arrives within a millisecond; if it is lost, no answer is older than this. (A round trip for
# each request costs more than it seems: while Redis syncs a write to its disk, 4 ms, it answers nobody.)
MAX_AGE_S = 1.0
MAX_ENTRIES = 4096


class LookupCache:
    """``invalidate`` must be called for every change of an existing key or episode. (Nobody can have asked for one that
    did not exist, since its id cannot be guessed.)"""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._batches: Batches[Question, Lookup] = Batches(self._ask, most=MAX_BATCH)
        # By "key:<id>" and "episode:<id>": when it was asked for, and the answer.
        self._entries: dict[str, tuple[float, Fields]] = {}
        # What was invalidated since the current round trip began.
        self._invalidated: set[str | None] = set()

    def invalidate(self, what: str | None) -> None:
        """``"<kind>:<id>"`` has changed; None: anything may have changed."""
        if what is None:
            self._entries.clear()
        else:
            self._entries.pop(what, None)
        if self._batches.under_way:
            self._invalidated.add(what)

    async def lookup(self, key_id: str, episode: str) -> Lookup:
        """Either may be empty. May raise ``errors.UNAVAILABLE``."""
        cached = self._cached(key_id, episode)
        return await self._batches.ask((key_id, episode)) if cached is None else cached

    async def close(self) -> None:
        await self._batches.close()

    def _cached(self, key_id: str, episode: str) -> Lookup | None:
        oldest = time.monotonic() - MAX_AGE_S
        of_key, of_episode = self._entries.get(f"key:{key_id}"), self._entries.get(f"episode:{episode}")
        if of_key is None or of_episode is None or min(of_key[0], of_episode[0]) < oldest:
            return None
        return Lookup(*of_key[1], *of_episode[1])

    def _store(self, question: Question, asked_at: float, answer: Lookup) -> None:
        if None in self._invalidated:
            return
        if len(self._entries) >= MAX_ENTRIES:  # nearly all of them are too old
            self._entries.clear()
        for what, fields in ((f"key:{question[0]}", answer[:2]), (f"episode:{question[1]}", answer[2:])):
            if what not in self._invalidated:
                self._entries[what] = (asked_at, fields)

    async def _ask(self, questions: list[Question]) -> list[Lookup]:
        self._invalidated.clear()
        asked_at = time.monotonic()
        names = [name for key, episode in questions for name in (keys.api_key(key), keys.record("episode", episode))]
        found: list[Any] = await run_async(self._redis, _LOOKUP(pairs_of_keys=names))
        answers = [Lookup(*found[at : at + 3]) for at in range(0, len(found), 3)]
        for question, answer in zip(questions, answers, strict=True):
            self._store(question, asked_at, answer)
        return answers
