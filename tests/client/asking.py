"""Both clients behind one interface, a service with prepared responses, and a clock."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NoReturn

import httpx

from lamanas_client import AsyncClient, Client

Handler = Callable[[httpx.Request], httpx.Response]
Chunk = bytes | Callable[[], object]
EPISODE: dict[str, Any] = {
    "id": "01k8d9w3v4q2x6y7z8a9b0c1d2",
    "name": None,
    "parent": None,
    "state": "ready",
    "classes": ["a", "b"],
    "shots": {"a": 1, "b": 1},
    "steps": 3,
    "seed": 0,
    "progress": {"step": 3, "steps": 3, "loss": [0.3, 0.2, 0.1]},
    "model_version": "0123456789abcdef",
    "warnings": [],
    "genotype": None,
    "parameters": None,
    "support_accuracy": 1.0,
    "leave_one_out_accuracy": None,
    "unlabelled_belonging": 0.5,
    "suspects": [{"image": 1, "label": "b", "likelier": "a", "times": 12.5}],
    "adapt_seconds": 0.5,
    "created_at": "2026-01-01T00:00:00Z",
    "expires_at": "2026-01-02T00:00:00Z",
    "error": None,
    "added_later": "is ignored",
}


class Asking:
    """``ask("get_episode", id)`` on the blocking or on the asynchronous client; a stream is collected."""

    def __init__(self, kind: type[Client] | type[AsyncClient]) -> None:
        self.kind = kind
        self.options: dict[str, Any] = {}

    def ask(self, where: str | Handler, method: str, *args: Any, key: str = "lam_x", **kwargs: Any) -> Any:
        url, transport = (where, None) if isinstance(where, str) else ("http://stub", httpx.MockTransport(where))
        if self.kind is Client:
            with Client(url, key, transport=transport, **self.options) as client:
                answer = getattr(client, method)(*args, **kwargs)
                return list(answer) if isinstance(answer, Iterator) else answer

        async def asked() -> Any:
            async with AsyncClient(url, key, transport=transport, **self.options) as client:
                answer = getattr(client, method)(*args, **kwargs)
                return [one async for one in answer] if isinstance(answer, AsyncIterator) else await answer

        return asyncio.run(asked())


class Told:
    """Gives these responses in turn, raises those that are errors, and keeps the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clock:
    """Starts at 1,000; ``pauses`` are those that were made."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    @property
    def elapsed(self) -> float:
        return self.now - 1000

    def sleep(self, seconds: float) -> None:
        assert 0 <= seconds < 1e6
        self.pauses.append(seconds)
        self.now += seconds

    async def async_sleep(self, seconds: float) -> None:
        self.sleep(seconds)

    def silence(self, request: httpx.Request, phase: str = "read") -> NoReturn:
        """Waits in vain for as long as the client's timeout for this phase allows, and raises what httpx raises."""
        self.now += request.extensions["timeout"].get(phase)
        raise {"read": httpx.ReadTimeout, "connect": httpx.ConnectTimeout}[phase]("timed out", request=request)


class Chunks(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a response. A callable among the chunks is called when the client reads on to it."""

    def __init__(self, *chunks: Chunk) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if isinstance(chunk, bytes):
                yield chunk
            else:
                chunk()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


def problem(status: int, kind: str, detail: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    body = {"type": f"/problems/{kind}", "title": kind, "status": status, "detail": detail, **more}
    return httpx.Response(status, json=body, headers=headers)


def stream(*events: tuple[str, str]) -> httpx.Response:
    """With a ping after each event, as the service sends when there is nothing new for a while."""
    text = "".join(f"event: {name}\ndata: {data}\nid: {n}\n\n: ping\n\n" for n, (name, data) in enumerate(events))
    return httpx.Response(200, text=text, headers={"Content-Type": "text/event-stream; charset=utf-8"})
