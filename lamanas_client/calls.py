"""One request: what is sent and what its response means. No input or output here."""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from lamanas_client.errors import LamanasError, NotLamanasError, ProblemError, TimedOutError, UnreachableError
from lamanas_client.retries import Deadline, Outcome, Timeouts, may_retry, retry_after

T = TypeVar("T")
Parsed = TypeVar("Parsed", bound=BaseModel)

IDEMPOTENCY_KEY = "Idempotency-Key"
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
# The content of a response is decoded and whole once it has been read; these no longer describe it.
OF_THE_TRANSFER = ("content-encoding", "content-length", "transfer-encoding")


@dataclass(frozen=True)
class Call:
    """A request. ``arguments`` are httpx's; a status in ``expected`` is returned rather than raised. ``safe``: it
    changes nothing at the service, whatever its method."""

    method: str
    path: str
    arguments: dict[str, Any] = field(default_factory=dict)
    expected: frozenset[int] = frozenset()
    safe: bool = False

    def to_httpx(self, deadline: Deadline) -> dict[str, Any]:
        """The arguments of httpx's ``stream`` for one attempt."""
        extensions = {"timeout": Timeouts(deadline)}
        return {"method": self.method, "url": self.path, "extensions": extensions, **self.arguments}

    def again(self, outcome: Outcome) -> bool:
        """Whether it is to be sent again after this."""
        idempotent = self.safe or self.method in IDEMPOTENT or IDEMPOTENCY_KEY in self.arguments.get("headers", {})
        return may_retry(outcome, idempotent)

    def response(self, outcome: Outcome) -> httpx.Response:
        """The response, if it is a success or expected. Raises LamanasError."""
        if isinstance(outcome, httpx.Response) and (outcome.is_success or outcome.status_code in self.expected):
            return outcome
        raise error_of(outcome)


@dataclass(frozen=True)
class Done(Generic[T]):
    """The end of an operation."""

    result: T


# An operation as a generator: it yields each call and is sent the response, until it returns a T.
Calls = Generator[Call, httpx.Response, T]


def advance(calls: Calls[T], response: httpx.Response | None) -> Call | Done[T]:
    """The operation's next call after this response (None at its start), or its result. It may read files."""
    try:
        return next(calls) if response is None else calls.send(response)
    except StopIteration as end:
        return Done(end.value)


class Content:
    """Collects the content of a response chunk by chunk, so that the deadline holds while it arrives."""

    def __init__(self, response: httpx.Response, deadline: Deadline) -> None:
        self._response = response
        self._deadline = deadline
        self._chunks: list[bytes] = []

    def add(self, chunk: bytes) -> None:
        """Raises httpx.ReadTimeout."""
        self._chunks.append(chunk)
        self._deadline.check(self._response.request)

    def whole(self) -> httpx.Response:
        """The response with its content."""
        headers = self._response.headers.copy()
        for name in OF_THE_TRANSFER:
            headers.pop(name, None)
        content, request = b"".join(self._chunks), self._response.request
        return httpx.Response(self._response.status_code, headers=headers, content=content, request=request)


def parse(model: type[Parsed], response: httpx.Response) -> Parsed:
    """The response's JSON as ``model``. Raises NotLamanasError."""
    return parse_json(model, response.content, str(response.url))


def parse_json(model: type[Parsed], content: str | bytes, url: str) -> Parsed:
    """``content`` as ``model``; ``url`` is named in the error. Raises NotLamanasError."""
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        wrong = error.errors()[0]
        what = ": ".join([".".join(map(str, wrong["loc"])), wrong["msg"]]).removeprefix(": ")
        text = f"unexpected response from {url} ({what}): is that a LAMANAS service?"
        raise NotLamanasError(text) from error


def error_of(outcome: Outcome) -> LamanasError:
    """The error to raise for the outcome of the last attempt."""
    if outcome is None:
        return UnreachableError("the event stream keeps closing before its last event")
    if isinstance(outcome, httpx.TimeoutException):
        return TimedOutError(f"{_url(outcome)} did not respond in time: {_text(outcome)}")
    if isinstance(outcome, httpx.DecodingError):
        return NotLamanasError(
            f"unexpected response from {_url(outcome)} ({_text(outcome)}): is that a LAMANAS service?"
        )
    if not isinstance(outcome, httpx.Response):
        return UnreachableError(f"{_url(outcome)} does not respond: {_text(outcome)}")
    try:
        problem = outcome.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "title" not in problem:
        if outcome.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            return NotLamanasError(_too_large(outcome.request))
        status = f"{outcome.status_code} {outcome.reason_phrase}".strip()
        return NotLamanasError(f"unexpected response from {outcome.url} ({status}): is that a LAMANAS service?")
    return ProblemError(outcome.status_code, problem, retry_after(outcome))


def _too_large(request: httpx.Request) -> str:
    size = int(request.headers.get("content-length", 0)) / 2**20
    return (
        f"{request.url} was sent {size:.3g} MB, which is too large for a proxy in front of the service: allow more "
        "there (docs/operations.md, 'Behind a proxy'), or send fewer or smaller images"
    )


def _text(error: httpx.RequestError) -> str:
    return str(error) or type(error).__name__


def _url(error: httpx.RequestError) -> str:
    try:
        return str(error.request.url)
    except RuntimeError:
        return "the service"
