"""Limits how long work may take: the kernel enforces it, even on a process that hangs in a library or on a device.

The parent process notices that the process has ended, ends its lease and starts another (see ``workers.main``).
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def time_limit(seconds: float) -> Iterator[Callable[[], None]]:
    """Ends this process if the block takes longer; calling what it yields counts the time anew from then on."""

    def count_anew() -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    count_anew()
    try:
        yield count_anew
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
