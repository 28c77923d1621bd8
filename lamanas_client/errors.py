"""What can go wrong, in the service's own words."""

from typing import Any

from lamanas_client.types import Episode


class LamanasError(Exception):
    """The base of all errors here; its text is for people."""


class ProblemError(LamanasError):
    """The service refused. Branch on ``kind``, which is stable; ``problem`` is all that it said (RFC 9457)."""

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
        """The field that is wrong, if the service named one."""
        return self.problem.get("field")

    @property
    def image(self) -> str | None:
        """The image that is wrong, if the service named one."""
        return self.problem.get("image")


class UnreachableError(LamanasError):
    """Nothing answered, also not after trying again."""


class NotLamanasError(LamanasError):
    """What answered is not this service, or too different a version of it."""


class EpisodeFailedError(LamanasError):
    """The adaptation ended without a classifier; ``episode.error`` says why."""

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        super().__init__(f"episode {episode.id} failed: {episode.error}")
