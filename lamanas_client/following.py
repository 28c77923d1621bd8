"""Following an episode or a training run by its server-sent events, as far as that needs no network."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent

from lamanas_client.calls import Outcome, Retries, parse_json
from lamanas_client.errors import EpisodeFailedError, ProblemError
from lamanas_client.types import Episode, Progress, Training

News = TypeVar("News")


@dataclass(frozen=True)
class Stream(Generic[News]):
    """Where events come from, and what one with this name and data means."""

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
    """Takes the events of one stream until the last; knows how to go on when the connection breaks."""

    def __init__(self, stream: Stream[News], patience: float) -> None:
        self.path = stream.path
        self.ended = False
        self._decode = stream.decode
        self._patience = patience
        self._retries = Retries(patience)
        self._last: News | None = None

    def take(self, event: ServerSentEvent) -> Iterator[News]:
        """What this event tells that was not told before. Raises ProblemError if the thing is gone."""
        if not event.data:  # a sign of life, which httpx-sse hands on after an event that had an id
            return
        if event.event == "gone":
            problem = json.loads(event.data)
            raise ProblemError(int(problem.get("status", 410)), problem)
        self._retries = Retries(self._patience)
        self.ended = event.event != "progress"
        news = self._decode(event.event, event.data)
        if news != self._last:  # after a break the first event tells the present state again
            self._last = news
            yield news

    def pause(self, outcome: Outcome | None) -> float:
        """Seconds until the stream is to be opened again, after this refusal or break. Raises LamanasError."""
        # Nothing was heard for long, not even the service's sign of life: the connection may be dead.
        return self._retries.pause(None if isinstance(outcome, httpx.ReadTimeout) else outcome)


def finished(news: Progress | Episode | None) -> Episode:
    """The episode that a stream ended with. Raises EpisodeFailedError."""
    assert isinstance(news, Episode)
    if news.state == "failed":
        raise EpisodeFailedError(news)
    return news
