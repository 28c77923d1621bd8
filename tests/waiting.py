"""Waiting in tests: for something that happens, never for time to pass."""

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

# Workers give way to whatever else runs: on a busy machine what takes a second may take a minute.
PATIENCE_S = 300.0


class Changed:
    """A subscription to a Redis channel; ``until`` looks after each message."""

    def __init__(self, redis: Redis, channel: str) -> None:
        self._subscription = redis.pubsub()  # type: ignore[no-untyped-call]
        self._subscription.subscribe(channel)
        self._subscription.get_message(timeout=5)

    def until(self, holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Returns once ``holds()``; looks at first, after each message, and every half second without one."""
        deadline = time.monotonic() + patience_s
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {patience_s:.0f} s in vain: {what}")
            self._subscription.get_message(timeout=0.5)

    def close(self) -> None:
        self._subscription.close()


@contextmanager
def changes(redis: Redis, channel: str) -> Iterator[Changed]:
    watcher = Changed(redis, channel)
    try:
        yield watcher
    finally:
        watcher.close()


def until_line(process: subprocess.Popen[str], words: str, patience_s: float = PATIENCE_S) -> list[str]:
    """Reads the process' standard output until a line holds ``words``; returns what was read."""
    assert process.stdout is not None
    lines: list[str] = []
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"the process ended before it said {words!r}:\n{''.join(lines)}")
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"waited {patience_s:.0f} s in vain for {words!r}:\n{''.join(lines)}")


def until_gone(pids: list[int], patience_s: float = PATIENCE_S) -> None:
    """Returns once none of these processes runs; waits on the kernel's notice of each."""

    deadline = time.monotonic() + patience_s
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ready, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"process {pid} still runs"
        finally:
            os.close(handle)


def family(pid: int) -> list[int]:
    """The process and all below it, by their ids."""
    below = [
        int(child) for tasks in Path(f"/proc/{pid}/task").glob("*/children") for child in tasks.read_text().split()
    ]
    return [pid, *(one for child in below for one in family(child))]
