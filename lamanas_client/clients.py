"""The two clients, blocking and asynchronous: they send what the operations yield, with retries."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload
from urllib.parse import urlsplit

import httpx
from httpx_sse import EventSource

from lamanas_client import operations
from lamanas_client.calls import Call, Calls, Content, Done, advance, error_of
from lamanas_client.connecting import invalid_token, on_this_machine
from lamanas_client.following import Following, News, Stream, episode_events, finished, training_events
from lamanas_client.images import Image, Support
from lamanas_client.retries import NO_RESPONSE, ONCE, Deadline, Outcome, Retries, asynchronous, blocking
from lamanas_client.types import Episode, Progress, Training

P = ParamSpec("P")
T = TypeVar("T")
Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)

DEFAULT = Retries()


class Operation(Generic[P, T]):
    """A method of both clients, made of a generator of calls: blocking in ``Client``, a coroutine in
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
    """The methods and the construction of both clients.

    ``retries``: how often and for how long a request is tried while the service is overloaded (429 or 503, whose
    ``Retry-After`` is respected) or cannot be reached; None sends each request once. ``transport``: another httpx
    transport, for tests. Proxies that the environment names are used, but not for this machine's loopback, which they
    cannot reach.

    Raises ValueError for what cannot be a token; no error repeats it.
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

    def __init__(self, url: str, token: str, *, retries: Retries | None = DEFAULT, transport: Any = None) -> None:
        invalid = invalid_token(token)
        # Headers do not show their values; tracebacks may show the variables of functions.
        headers = httpx.Headers() if invalid else httpx.Headers({"Authorization": f"Bearer {token.strip()}"})
        del token
        self.url = url = url.partition("#")[0].rstrip("/")  # the link that `lamanas serve` prints ends with #token=
        if invalid:
            raise ValueError(invalid)
        parts = urlsplit(url)
        self._retries = ONCE if retries is None else retries
        direct = {f"all://{parts.netloc.rpartition('@')[2]}": None} if on_this_machine(parts.hostname or "") else None
        self._http = self._made(base_url=self.url, headers=headers, transport=transport, mounts=direct)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


class Client(Operations[httpx.Client]):
    """``with Client(url, token) as client:``; each method blocks until it is done. Raises LamanasError."""

    _made = staticmethod(httpx.Client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def adapt(
        self,
        support: Support,
        *,
        unlabelled: Iterable[Image] = (),
        steps: int | None = None,
        seed: int = 0,
        name: str | None = None,
    ) -> Episode:
        """``create_episode``, then ``wait`` for it."""
        return self.wait(self.create_episode(support, unlabelled=unlabelled, steps=steps, seed=seed, name=name).id)

    def wait(self, episode_id: str) -> Episode:
        """The finished episode. Raises EpisodeFailedError."""
        last = None
        for news in self.watch_episode(episode_id):
            last = news
        return finished(last)

    def watch_episode(self, id: str) -> Iterator[Progress | Episode]:
        """Yields its progress after each step, and at last the episode, ready or failed."""
        return self._follow(episode_events(id))

    def watch_training(self, id: str) -> Iterator[Training]:
        """Yields the run after each change, at last in its final state."""
        return self._follow(training_events(id))

    def _run(self, calls: Calls[T]) -> T:
        response = None
        while not isinstance(call := advance(calls, response), Done):
            deadline = Deadline(self._retries.deadline)
            response = call.response(blocking(self._retries, deadline, call.again)(self._send, call, deadline))
        return call.result

    def _send(self, call: Call, deadline: Deadline) -> Outcome:
        try:
            with self._http.stream(**call.to_httpx(deadline)) as response:
                content = Content(response, deadline)
                for chunk in response.iter_bytes():
                    content.add(chunk)
                return content.whole()
        except NO_RESPONSE as error:
            return error

    def _follow(self, stream: Stream[News]) -> Iterator[News]:
        following = Following(stream, self._retries)
        outcome: Outcome = None
        for attempt in blocking(self._retries, following.deadline, following.again):
            outcome = None
            try:
                with self._http.stream(**following.to_httpx()) as response:
                    if response.is_success:
                        for event in EventSource(response).iter_sse():
                            yield from following.take(event)
                    else:
                        content = Content(response, following.deadline)
                        for chunk in response.iter_bytes():
                            content.add(chunk)
                        outcome = content.whole()
            except NO_RESPONSE as error:
                outcome = error
            following.record(attempt.retry_state, outcome)
        if not following.ended:
            raise error_of(outcome)


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
        self,
        support: Support,
        *,
        unlabelled: Iterable[Image] = (),
        steps: int | None = None,
        seed: int = 0,
        name: str | None = None,
    ) -> Episode:
        """``create_episode``, then ``wait`` for it."""
        created = await self.create_episode(support, unlabelled=unlabelled, steps=steps, seed=seed, name=name)
        return await self.wait(created.id)

    async def wait(self, episode_id: str) -> Episode:
        """The finished episode. Raises EpisodeFailedError."""
        last = None
        async for news in self.watch_episode(episode_id):
            last = news
        return finished(last)

    def watch_episode(self, id: str) -> AsyncIterator[Progress | Episode]:
        """Yields its progress after each step, and at last the episode, ready or failed."""
        return self._follow(episode_events(id))

    def watch_training(self, id: str) -> AsyncIterator[Training]:
        """Yields the run after each change, at last in its final state."""
        return self._follow(training_events(id))

    async def _run(self, calls: Calls[T]) -> T:
        response = None
        # In a thread, since it reads files.
        while not isinstance(call := await asyncio.to_thread(advance, calls, response), Done):
            deadline = Deadline(self._retries.deadline)
            retrying = asynchronous(self._retries, deadline, call.again)
            response = call.response(await retrying(self._send, call, deadline))
        return call.result

    async def _send(self, call: Call, deadline: Deadline) -> Outcome:
        try:
            async with self._http.stream(**call.to_httpx(deadline)) as response:
                content = Content(response, deadline)
                async for chunk in response.aiter_bytes():
                    content.add(chunk)
                return content.whole()
        except NO_RESPONSE as error:
            return error

    async def _follow(self, stream: Stream[News]) -> AsyncIterator[News]:
        following = Following(stream, self._retries)
        outcome: Outcome = None
        async for attempt in asynchronous(self._retries, following.deadline, following.again):
            outcome = None
            try:
                async with self._http.stream(**following.to_httpx()) as response:
                    if response.is_success:
                        async for event in EventSource(response).aiter_sse():
                            for news in following.take(event):
                                yield news
                    else:
                        content = Content(response, following.deadline)
                        async for chunk in response.aiter_bytes():
                            content.add(chunk)
                        outcome = content.whole()
            except NO_RESPONSE as error:
                outcome = error
            following.record(attempt.retry_state, outcome)
        if not following.ended:
            raise error_of(outcome)
