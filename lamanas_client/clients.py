"""The two clients: what is sent is decided elsewhere, here it is sent, and waited for."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import httpx
from httpx_sse import EventSource

from lamanas_client import operations
from lamanas_client.calls import Call, Calls, Outcome, Pause, patiently
from lamanas_client.following import Following, News, Stream, episode_events, finished, training_events
from lamanas_client.images import Support
from lamanas_client.types import Episode, Progress, Training

P = ParamSpec("P")
T = TypeVar("T")
Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)

# Longer than the service holds an answer back, and than the pause between its signs of life in a stream.
TIMEOUT_S = 90.0
PATIENCE_S = 30.0
SSE = {"Accept": "text/event-stream", "Cache-Control": "no-store"}


class Operation(Generic[P, T]):
    """A method of both clients, from the one place that says what it sends: blocking in ``Client``, awaited in
    ``AsyncClient``."""

    def __init__(self, make: Callable[P, Calls[T]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self

        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client._run(self._make(*args, **kwargs))

        method.__doc__ = self.__doc__
        return method


class Operations(Generic[Http]):
    """What both clients can do, and how they are made.

    ``patience``: for how many seconds in all one request is tried again while the service is overloaded (429 or 503,
    whose ``Retry-After`` is kept) or cannot be reached. ``transport``: another way to reach it, for tests.
    """

    session = Operation(operations.session)
    create_episode = Operation(operations.create_episode)
    correct_episode = Operation(operations.correct_episode)
    get_episode = Operation(operations.get_episode)
    list_episodes = Operation(operations.list_episodes)
    delete_episode = Operation(operations.delete_episode)
    predict = Operation(operations.predict)
    download = Operation(operations.download)
    list_models = Operation(operations.list_models)
    activate_model = Operation(operations.activate_model)
    start_training = Operation(operations.start_training)
    get_training = Operation(operations.get_training)
    list_trainings = Operation(operations.list_trainings)
    cancel_training = Operation(operations.cancel_training)
    resume_training = Operation(operations.resume_training)

    # httpx's client of the same kind, made by ``_made``.
    _http: Http
    _made: Callable[..., Http]

    def __init__(self, url: str, token: str, *, patience: float = PATIENCE_S, transport: Any = None) -> None:
        self.url = url.rstrip("/")
        self._patience = patience
        headers = {"Authorization": f"Bearer {token}"}
        self._http = self._made(base_url=self.url, headers=headers, timeout=TIMEOUT_S, transport=transport)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _stream(self, following: Following[News]) -> Any:
        return self._http.stream("GET", following.path, headers=SSE)


class Client(Operations[httpx.Client]):
    """``with Client(url, token) as client:``; each method returns when it is done. Raises LamanasError."""

    _made = staticmethod(httpx.Client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def adapt(self, support: Support, *, steps: int | None = None, seed: int = 0, name: str | None = None) -> Episode:
        """``create_episode``, then ``wait`` for it."""
        return self.wait(self.create_episode(support, steps=steps, seed=seed, name=name).id)

    def wait(self, episode_id: str) -> Episode:
        """The finished episode. Raises EpisodeFailedError."""
        last = None
        for news in self.watch_episode(episode_id):
            last = news
        return finished(last)

    def watch_episode(self, id: str) -> Iterator[Progress | Episode]:
        """Its progress as it is made; last the episode, ready or failed."""
        return self._follow(episode_events(id))

    def watch_training(self, id: str) -> Iterator[Training]:
        """The run after each change; last as it ended."""
        return self._follow(training_events(id))

    def _run(self, calls: Calls[T]) -> T:
        steps = patiently(calls, self._patience)
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = self._do(step)

    def _do(self, step: Call | Pause) -> Outcome | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return self._http.request(step.method, step.path, **step.arguments)
        except httpx.TransportError as error:
            return error

    def _follow(self, stream: Stream[News]) -> Iterator[News]:
        following = Following(stream, self._patience)
        while not following.ended:
            outcome: Outcome | None = None
            try:
                with self._stream(following) as response:
                    if response.is_success:
                        for event in EventSource(response).iter_sse():
                            yield from following.take(event)
                    else:
                        response.read()
                        outcome = response
            except httpx.TransportError as error:
                outcome = error
            if not following.ended:
                time.sleep(following.pause(outcome))


class AsyncClient(Operations[httpx.AsyncClient]):
    """``async with AsyncClient(url, token) as client:``; the same methods, awaited. Raises LamanasError."""

    _made = staticmethod(httpx.AsyncClient)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def adapt(
        self, support: Support, *, steps: int | None = None, seed: int = 0, name: str | None = None
    ) -> Episode:
        """``create_episode``, then ``wait`` for it."""
        return await self.wait((await self.create_episode(support, steps=steps, seed=seed, name=name)).id)

    async def wait(self, episode_id: str) -> Episode:
        """The finished episode. Raises EpisodeFailedError."""
        last = None
        async for news in self.watch_episode(episode_id):
            last = news
        return finished(last)

    def watch_episode(self, id: str) -> AsyncIterator[Progress | Episode]:
        """Its progress as it is made; last the episode, ready or failed."""
        return self._follow(episode_events(id))

    def watch_training(self, id: str) -> AsyncIterator[Training]:
        """The run after each change; last as it ended."""
        return self._follow(training_events(id))

    async def _run(self, calls: Calls[T]) -> T:
        steps = patiently(calls, self._patience)
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = await self._do(step)

    async def _do(self, step: Call | Pause) -> Outcome | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._http.request(step.method, step.path, **step.arguments)
        except httpx.TransportError as error:
            return error

    async def _follow(self, stream: Stream[News]) -> AsyncIterator[News]:
        following = Following(stream, self._patience)
        while not following.ended:
            outcome: Outcome | None = None
            try:
                async with self._stream(following) as response:
                    if response.is_success:
                        async for event in EventSource(response).aiter_sse():
                            for news in following.take(event):
                                yield news
                    else:
                        await response.aread()
                        outcome = response
            except httpx.TransportError as error:
                outcome = error
            if not following.ended:
                await asyncio.sleep(following.pause(outcome))
