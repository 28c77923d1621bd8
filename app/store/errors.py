"""What the store says when it cannot do what was asked."""

import math

import redis.exceptions

# Redis is gone or still loading. Raised as they are by every method of the stores; the app answers 503.
UNAVAILABLE = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


class StoreError(Exception):
    """Base of the refusals below; the text is for the user."""


class NotFound(StoreError):  # noqa: N818
    """There never was such a thing, or it is long gone."""


class Gone(StoreError):  # noqa: N818
    """It existed and was deleted or expired within the last day; whose it was."""

    def __init__(self, text: str, owner: str) -> None:
        super().__init__(text)
        self.owner = owner


class NotReady(StoreError):  # noqa: N818
    """The episode exists and has no artifact (yet): it is queued, adapting or failed."""


class Conflict(StoreError):  # noqa: N818
    """The thing's state does not allow this, e.g. resuming a run that runs."""


class IdempotencyConflict(Conflict):
    """The idempotency key was used before with another request."""


class StoreFull(StoreError):  # noqa: N818
    """The images of the episodes that there are take all the memory that they may."""

    retry_after = 60

    def __init__(self) -> None:
        super().__init__("the store is full; episodes make room when they expire or are deleted")


class QueueFull(StoreError):  # noqa: N818
    """Too much waits already. ``retry_after``: seconds; ``own``: it is this owner's share that is full."""

    def __init__(self, retry_after: int, *, own: bool = False) -> None:
        what = "too many of your episodes are unfinished" if own else "the queue is full"
        super().__init__(f"{what}; try again in {retry_after} s")
        self.retry_after = retry_after
        self.own = own

    @classmethod
    def behind(cls, waiting: int, *, own: bool = False) -> "QueueFull":
        """To come back in about the time in which one worker, at a second each, does a tenth of those that wait."""
        return cls(max(1, min(60, math.ceil(waiting / 10))), own=own)
