"""Questions to Redis that are asked at the same time share one round trip."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from app.store.deadline import waiting

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")


class Batches(Generic[Question, Answer]):
    """A question that comes while a round trip is under way waits for the next one, which asks all that wait together:
    it costs hardly more than a single one.

    ``ask_all`` answers questions in their order; what it raises, it raises for all of them. ``most``: how many it is
    asked at a time, since a longer round trip would keep Redis and this process from others for too long.
    """

    def __init__(self, ask_all: Callable[[list[Question]], Awaitable[Sequence[Answer]]], *, most: int) -> None:
        self._ask_all = ask_all
        self._most = most
        self._asked: dict[Question, asyncio.Future[Answer]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> bool:
        return self._task is not None

    async def ask(self, question: Question) -> Answer:
        """The answer, as it is after this call or later."""
        answer = self._asked.get(question)
        if answer is None:
            answer = self._asked[question] = asyncio.get_running_loop().create_future()
            if self._task is None:
                # Not in the context of this request, whose time limit is not that of the others.
                self._task = asyncio.create_task(self._run(), name="batches", context=Context())
        # Shielded: a client that disconnects does not cancel the question of the others.
        async with waiting():
            return await asyncio.shield(answer)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for answer in self._asked.values():
            answer.cancel()

    async def _run(self) -> None:
        try:
            while self._asked:
                questions = list(self._asked)[: self._most]
                await self._answer({question: self._asked.pop(question) for question in questions})
        finally:
            self._task = None

    async def _answer(self, asked: dict[Question, asyncio.Future[Answer]]) -> None:
        try:
            async with waiting():
                found = await self._ask_all(list(asked))
        except BaseException as error:
            for future in asked.values():
                if isinstance(error, Exception):
                    future.set_exception(error)
                    future.exception()  # marks it as retrieved, even if nobody waits for it any more
                else:
                    future.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for future, answer in zip(asked.values(), found, strict=True):
            future.set_result(answer)
