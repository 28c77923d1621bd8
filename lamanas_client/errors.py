"""The errors that clients raise."""

from typing import Any

from lamanas_client.types import Episode


class LamanasError(Exception):
    """The base class of all errors of this package; the message is meant for people."""


class ProblemError(LamanasError):
    """The service refused the request. Branch on ``kind``, which is stable.

    ``problem``: the body of the response (RFC 9457). ``retry_after``: seconds, 0 to 1e9; None without that header.
    """

    def __init__(self, status: int, problem: dict[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        self.problem = problem
        self.retry_after = retry_after
        super().__init__(str(problem.get("detail") or problem.get("title") or f"refused with status {status}"))

    @property
    def kind(self) -> str:
        """Such as ``invalid-image``: the last part of the problem's ``type``."""
        return str(self.problem.get("type", "")).rpartition("/")[2]

    @property
    def field(self) -> str | None:
        """The invalid field, if the service named one."""
        return self.problem.get("field")

    @property
    def image(self) -> str | None:
        """The invalid image, if the service named one."""
        return self.problem.get("image")


class UnreachableError(LamanasError):
    """No response, even after retries."""


class TimedOutError(UnreachableError):
    """No complete response before the deadline."""


class NotLamanasError(LamanasError):
    """The response came from another service, or from an incompatible version of this one."""


class EpisodeFailedError(LamanasError):
    """Adapting the episode failed; ``episode.error`` says why."""

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        super().__init__(f"episode {episode.id} failed: {episode.error}")
