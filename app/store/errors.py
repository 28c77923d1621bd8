"""The errors of the store."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from redis._parsers import BaseParser
from redis.exceptions import (
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)


class NotSavedError(ResponseError):
    """Redis cannot save to its disk, and takes no writes until it can. (redis-py has no name for MISCONF.)"""


class NotReplicatedError(ConnectionError):
    """Redis has too few replicas, and takes no writes until it has more; or none has confirmed a write."""


class BecameReplicaError(ConnectionError, ReadOnlyError):
    """This server was the primary; by now, the name or the sentinels may lead to another one."""


# As errors of the connection, they make redis-py and Celery connect again and go on, as they must after a failover: the
# old primary may keep its connections, and the new one takes no writes until a replica has come.
BaseParser.EXCEPTION_CLASSES |= {"NOREPLICAS": NotReplicatedError, "READONLY": BecameReplicaError}


# Redis answers, but takes no writes: it is out of memory, it has become a replica, it cannot save or replicate them, or
# its operator does not let us.
REFUSING = (OutOfMemoryError, ReadOnlyError, NotSavedError, NotReplicatedError, NoPermissionError)
# What Redis says then, by itself and within the error of a script.
_SIGNS = (
    ("OOM ", OutOfMemoryError),
    ("READONLY ", ReadOnlyError),
    ("MISCONF ", NotSavedError),
    ("NOREPLICAS ", NotReplicatedError),
    ("NOPERM ", NoPermissionError),
)
_NOT_PERMITTED_IN_SCRIPT = ("The user executing the script can't", "ACL failure in script")


class ObjectsUnavailableError(Exception):
    """The folder or bucket of ``app/store/objects.py`` does not respond or takes no writes; the text says why."""


# Redis is gone, still loading, or refusing, or the object store is. Every method of the stores may raise these; the app
# answers 503.
UNAVAILABLE = (ConnectionError, TimeoutError, *REFUSING, ObjectsUnavailableError)


@contextmanager
def refusals_named() -> Iterator[None]:
    """Around a command or a script: raises one of REFUSING where that is the cause. Redis before 7 wraps the cause in
    an error of the script."""
    try:
        yield
    except REFUSING:
        raise
    except ResponseError as error:
        for sign, refusal in _SIGNS:
            if str(error).startswith(sign) or f"-{sign}" in str(error):
                raise refusal(str(error)) from error
        if any(words in str(error) for words in _NOT_PERMITTED_IN_SCRIPT):
            raise NoPermissionError(str(error)) from error
        raise


class StoreError(Exception):
    """Base of the errors below; the text is for the user."""


class NotFound(StoreError):  # noqa: N818
    """There is no such record, and has been none within the last day."""


class UnknownModel(NotFound):
    """There is no such version of a meta-model (any more)."""


class Gone(StoreError):  # noqa: N818
    """It was deleted or expired within the last day. ``owner``: whose it was."""

    def __init__(self, text: str, owner: str) -> None:
        super().__init__(text)
        self.owner = owner


class NotReady(StoreError):  # noqa: N818
    """The episode exists and has no artifact (yet): it is queued, adapting or failed."""


class Conflict(StoreError):  # noqa: N818
    """The current state does not allow this, e.g. to resume a run that has finished."""


class IdempotencyConflict(Conflict):
    """The idempotency key was used before with another request."""


class StoreFull(StoreError):  # noqa: N818
    """Support sets take all the room that is meant for them, or Redis all the memory that it may use."""

    retry_after = 60

    def __init__(self) -> None:
        super().__init__("the store is full; episodes make room when they expire or are deleted")


class ForeignObjects(StoreError):  # noqa: N818
    """The object store is not that of this Redis."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"nothing is removed, as this Redis and this object store do not belong together: {found}; "
            'see "Object store" in docs/operations.md'
        )


class LaterRelease(StoreError):  # noqa: N818
    """What is in Redis has a form that this release does not know."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"a later release has used this Redis (schema {found}; this one knows {known}): start that release, or "
            "restore a backup from before"
        )


class QueueFull(StoreError):  # noqa: N818
    """Too many jobs wait. ``retry_after``: seconds; ``own``: it is this owner's limit that is reached."""

    def __init__(self, retry_after: int, *, own: bool = False) -> None:
        what = "too many of your episodes are unfinished" if own else "the queue is full"
        super().__init__(f"{what}; try again in {retry_after} s")
        self.retry_after = retry_after
        self.own = own

    @classmethod
    def behind(cls, waiting: int, *, own: bool = False) -> "QueueFull":
        """Retry after about the time in which one worker finishes a tenth of those that wait, at a second each."""
        return cls(max(1, min(60, math.ceil(waiting / 10))), own=own)
