"""What the store says when it cannot do what was asked."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import ConnectionError, OutOfMemoryError, ReadOnlyError, ResponseError, TimeoutError


class NotSavedError(ResponseError):
    """Redis could not save to its disk, and takes no writes until it can. (redis-py has no name for MISCONF.)"""


# Redis answers and takes no writes.
REFUSING = (OutOfMemoryError, ReadOnlyError, NotSavedError)
# Redis is gone, still loading, or refusing. Raised as they are by every method of the stores; the app answers 503.
UNAVAILABLE = (ConnectionError, TimeoutError, *REFUSING)


@contextmanager
def unwrapped() -> Iterator[None]:
    """Around a command or a script: raises what it was refused for. Redis before 7 tells that in an error of the
    script's own."""
    try:
        yield
    except REFUSING:
        raise
    except ResponseError as error:
        if str(error).startswith("MISCONF "):
            raise NotSavedError(str(error)) from error
        for sign, refusal in (("-OOM ", OutOfMemoryError), ("-READONLY ", ReadOnlyError), ("-MISCONF ", NotSavedError)):
            if sign in str(error):
                raise refusal(str(error)) from error
        raise


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
    """The thing's state does not allow this, e.g. resuming a run that is finished."""


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
