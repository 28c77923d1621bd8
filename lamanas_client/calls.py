"""One request: what is sent, what its answer means, and when it is sent again. No input or output here."""

import email.utils
import random
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from lamanas_client.errors import LamanasError, NotLamanasError, ProblemError, UnreachableError

T = TypeVar("T")
Parsed = TypeVar("Parsed", bound=BaseModel)

OVERLOADED = frozenset({429, 503})
# No answer came or it broke off. Whatever is sent may be sent again: submissions carry an idempotency key.
BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout, httpx.PoolTimeout)
LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True)
class Call:
    """``arguments`` are httpx's; a status in ``fine`` is none that is raised."""

    method: str
    path: str
    arguments: dict[str, Any] = field(default_factory=dict)
    fine: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Pause:
    seconds: float


# What came of a call.
Outcome = httpx.Response | httpx.TransportError
# What a client does step by step until it has a T: it sends each call and hands in the response.
Calls = Generator[Call, httpx.Response, T]
Steps = Generator[Call | Pause, Outcome | None, T]


@dataclass
class Retries:
    """Counts the attempts at one call or stream; gives up before it would have paused for more than ``patience``
    seconds in all."""

    patience: float
    attempts: int = 0
    paused: float = 0.0

    def pause(self, outcome: Outcome | None) -> float:
        """Seconds until it is to be tried again. Raises LamanasError where that makes no sense (any more)."""
        asked = retry_after(outcome) if isinstance(outcome, httpx.Response) else None
        backoff = min(LONGEST_PAUSE_S, 0.25 * 2**self.attempts) * random.uniform(0.5, 1)
        pause = backoff if asked is None else asked
        if not _temporary(outcome) or self.paused + pause > self.patience:
            raise error_of(outcome)
        self.attempts += 1
        self.paused += pause
        return pause


def patiently(calls: Calls[T], patience: float) -> Steps[T]:
    """The same calls, each sent again while the service is overloaded or away. Raises LamanasError."""
    response: Any = None
    while True:
        try:
            call = calls.send(response)
        except StopIteration as end:
            result: T = end.value
            return result
        response = yield from _attempts(call, patience)


def _attempts(call: Call, patience: float) -> Steps[httpx.Response]:
    retries = Retries(patience)
    while True:
        outcome = yield call
        if isinstance(outcome, httpx.Response) and (outcome.is_success or outcome.status_code in call.fine):
            return outcome
        yield Pause(retries.pause(outcome))


def parse(model: type[Parsed], response: httpx.Response) -> Parsed:
    """The answer as ``model``. Raises NotLamanasError."""
    return parse_json(model, response.content, str(response.url))


def parse_json(model: type[Parsed], content: str | bytes, url: str) -> Parsed:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        wrong = error.errors()[0]
        what = ": ".join([".".join(map(str, wrong["loc"])), wrong["msg"]]).removeprefix(": ")
        text = f"{url} answers something else than expected ({what}): is that a LAMANAS service?"
        raise NotLamanasError(text) from error


def retry_after(response: httpx.Response) -> float | None:
    """The header in seconds, whichever of its two forms it has."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def error_of(outcome: Outcome | None) -> LamanasError:
    """What to raise after this."""
    if outcome is None:
        return UnreachableError("the service ends the stream again and again before it has told the end")
    if not isinstance(outcome, httpx.Response):
        return UnreachableError(f"{_url(outcome)} does not answer: {str(outcome) or type(outcome).__name__}")
    try:
        problem = outcome.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "title" not in problem:
        text = f"{outcome.url} answers {outcome.status_code} {outcome.reason_phrase}: is that a LAMANAS service?"
        return NotLamanasError(text)
    return ProblemError(outcome.status_code, problem, retry_after(outcome))


def _temporary(outcome: Outcome | None) -> bool:
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in OVERLOADED
    return outcome is None or isinstance(outcome, BROKEN)


def _url(error: httpx.TransportError) -> str:
    try:
        return str(error.request.url)
    except RuntimeError:
        return "the service"
