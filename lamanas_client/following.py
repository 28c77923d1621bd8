"""Following an episode or a training run by its server-sent events. No input or output here."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent
from tenacity import RetryCallState

from lamanas_client.calls import parse_json
from lamanas_client.errors import EpisodeFailedError, ProblemError
from lamanas_client.retries import LONGEST_PAUSE_S, SILENCE_S, Deadline, Outcome, Retries, Timeouts, may_retry
from lamanas_client.types import Episode, Progress, Training

News = TypeVar("News")

SSE = {"Accept": "text/event-stream", "Cache-Control": "no-store"}


@dataclass(frozen=True)
class Stream(Generic[News]):
    """The path of the events; ``decode`` makes news of the name and the data of one."""

    path: str
    decode: Callable[[str, str], News]


def episode_events(id: str) -> Stream[Progress | Episode]:
    path = _path("episodes", id)

    def decode(name: str, data: str) -> Progress | Episode:
        return parse_json(Progress, data, path) if name == "progress" else parse_json(Episode, data, path)

    return Stream(path, decode)


def training_events(id: str) -> Stream[Training]:
    path = _path("train", id)
    return Stream(path, lambda _, data: parse_json(Training, data, path))


def _path(kind: str, id: str) -> str:
    return f"/{kind}/{quote(id, safe='')}/events"


class Following(Generic[News]):
    """Reads the events of one stream until the last one, over as many connections as that takes."""

    def __init__(self, stream: Stream[News], retries: Retries) -> None:
        self.deadline = Deadline(retries.deadline)
        self.ended = False
        self._stream = stream
        self._last: News | None = None
        self._news = False
        self._opened = time.monotonic()

    def to_httpx(self) -> dict[str, Any]:
        """The arguments of httpx's ``stream`` for the next connection."""
        self._opened = time.monotonic()
        self._news = False
        extensions = {"timeout": Timeouts(self.deadline, silence=SILENCE_S)}
        return {"method": "GET", "url": self._stream.path, "headers": SSE, "extensions": extensions}

    def take(self, event: ServerSentEvent) -> Iterator[News]:
        """What this event says that is new. Raises ProblemError if the record no longer exists."""
        self.deadline.restart()
        if not event.data:  # a ping, which httpx-sse passes on after an event that had an id
            return
        if event.event == "gone":
            problem = json.loads(event.data)
            raise ProblemError(int(problem.get("status", 410)), problem)
        self.ended = event.event != "progress"
        news = self._stream.decode(event.event, event.data)
        if news != self._last:  # the first event of a new connection repeats the present state
            self._last = news
            self._news = True
            yield news
            self.deadline.restart()  # the time that the caller spent on the news does not count

    def again(self, outcome: Outcome) -> bool:
        """Whether to connect again after this."""
        # Without even a ping for so long, the connection is probably dead.
        return not self.ended and (isinstance(outcome, httpx.ReadTimeout) or may_retry(outcome, idempotent=True))

    def record(self, attempt: RetryCallState, outcome: Outcome) -> None:
        """Ends an attempt. One that was of use makes the next ones count from 1 again.

        A stream that closes soon without news is of no use: otherwise a broken proxy could be asked forever.
        """
        if self._news or (outcome is None and time.monotonic() - self._opened > LONGEST_PAUSE_S):
            attempt.attempt_number = 1
        attempt.set_result(outcome)


def finished(news: Progress | Episode | None) -> Episode:
    """The episode that the last event of its stream described. Raises EpisodeFailedError."""
    assert isinstance(news, Episode)
    if news.state == "failed":
        raise EpisodeFailedError(news)
    return news
