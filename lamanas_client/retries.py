"""When a request is sent again, after what pause, and when to give up: the rules that both clients hand to tenacity."""

import asyncio
import email.utils
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import tenacity
from tenacity import RetryCallState

# What came of one attempt: a response with any status, the error that took its place, or None for a stream of events
# that ended before its last event.
Outcome = httpx.Response | httpx.TransportError | httpx.DecodingError | None
# Those errors: a response that cannot be decompressed is no transport error of httpx.
NO_RESPONSE = (httpx.TransportError, httpx.DecodingError)

OVERLOADED = frozenset({429, 503})
# From a proxy: the service may have processed the request, but its answer was lost.
LOST = frozenset({502, 504})
# The request did not reach the service.
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# The service may have processed the request, but its answer was lost.
BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError)
# Pauses grow exponentially; each is drawn between half of its bound and all of it.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
# Longer than the service takes over any answer.
READ_TIMEOUT_S = 90.0
# Three times the interval between pings in a stream of events: after this silence its connection counts as broken.
SILENCE_S = 45.0
# The timeout after the deadline has passed: httpcore would make a socket non-blocking at 0.
SHORTEST_TIMEOUT_S = 0.001
# A larger Retry-After means "never"; a bound keeps it from overflowing the arithmetic of clocks.
LONGEST_RETRY_AFTER_S = 1e9
SECONDS = re.compile(r"\d+(\.\d+)?", re.ASCII)


@dataclass(frozen=True)
class Retries:
    """How hard a client tries to get one request answered.

    ``attempts``: how often it is sent at most, at least 1. ``deadline``: seconds from the first attempt until the
    client gives up, whatever it is doing then: connecting, sending, reading a response or pausing between attempts.

    While a client follows events, ``attempts`` are the connections in a row without news, and the deadline starts anew
    with each event or ping. An open stream may be silent for 45 seconds even if the deadline is shorter.

    Raises ValueError.
    """

    attempts: int = 10
    deadline: float = 120.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}: at least 1 is needed")
        if not 0 < self.deadline < math.inf:
            raise ValueError(f"deadline is {self.deadline}: a positive, finite number of seconds is needed")


# What ``retries=None`` means.
ONCE = Retries(attempts=1)


class Deadline:
    """A moment on the monotonic clock that can be postponed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        self._at = time.monotonic() + self._seconds

    def left(self) -> float:
        """Seconds until it passes; negative afterwards."""
        return self._at - time.monotonic()

    def check(self, request: httpx.Request) -> None:
        """Raises httpx.ReadTimeout once it has passed: for responses that arrive, but too slowly."""
        if self.left() <= 0:
            raise httpx.ReadTimeout("the deadline passed while the response arrived", request=request)


class Timeouts(dict[str, float]):
    """httpx's timeouts for one attempt, which never allow more than what is left until the deadline.

    The transport asks for a timeout at the start of each phase (``pool``, ``connect``, ``write``, ``read``), so that
    several phases together do not take a multiple of the deadline. ``silence``: seconds that a read may take even if
    the deadline is nearer.
    """

    def __init__(self, deadline: Deadline, silence: float = SHORTEST_TIMEOUT_S) -> None:
        self._deadline = deadline
        self._silence = silence
        super().__init__({phase: self.get(phase) for phase in ("connect", "read", "write", "pool")})

    def get(self, phase: str, default: Any = None) -> Any:
        shortest = self._silence if phase == "read" else SHORTEST_TIMEOUT_S
        return max(shortest, min(READ_TIMEOUT_S, self._deadline.left()))


def may_retry(outcome: Outcome, idempotent: bool) -> bool:
    """Whether sending the request again can help and does no harm."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in OVERLOADED or (idempotent and outcome.status_code in LOST)
    return isinstance(outcome, NOT_SENT) or (idempotent and (outcome is None or isinstance(outcome, BROKEN)))


def retry_after(outcome: Outcome) -> float | None:
    """The ``Retry-After`` header in seconds from now, 0 to 1e9; None if there is none or it is malformed."""
    value = outcome.headers.get("retry-after", "").strip() if isinstance(outcome, httpx.Response) else ""
    if SECONDS.fullmatch(value):
        return min(float(value), LONGEST_RETRY_AFTER_S)
    try:
        at = email.utils.parsedate_to_datetime(value)
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_S)


def _pause(state: RetryCallState) -> float:
    """The backoff, or ``Retry-After`` where that is longer: a service that says 0 must not be asked in a tight loop."""
    half = tenacity.wait_exponential(FIRST_PAUSE_S / 2, max=LONGEST_PAUSE_S / 2)(state)
    backoff = half + tenacity.wait_random(0, half)(state)
    assert state.outcome is not None
    return max(backoff, retry_after(state.outcome.result()) or 0.0)


def _rules(retries: Retries, deadline: Deadline, again: Callable[[Any], bool]) -> dict[str, Any]:
    def stop(state: RetryCallState) -> bool:
        return state.attempt_number >= retries.attempts or state.upcoming_sleep >= deadline.left()

    return {
        "retry": tenacity.retry_if_result(again),
        "wait": _pause,
        "stop": stop,
        # The last outcome is returned, whether it is a success or not.
        "retry_error_callback": lambda state: state.outcome.result(),
    }


def blocking(retries: Retries, deadline: Deadline, again: Callable[[Any], bool]) -> tenacity.Retrying:
    """Makes attempts while ``again(outcome)``, within the limits; then returns the last outcome."""
    return tenacity.Retrying(sleep=time.sleep, **_rules(retries, deadline, again))


def asynchronous(retries: Retries, deadline: Deadline, again: Callable[[Any], bool]) -> tenacity.AsyncRetrying:
    """Like ``blocking``, for coroutines."""
    return tenacity.AsyncRetrying(sleep=asyncio.sleep, **_rules(retries, deadline, again))
