"""Waits in tests for events, never for a fixed time."""

import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from redis import Redis

# Workers have a low priority: on a busy machine, what takes a second otherwise may take a minute.
PATIENCE_S = 300.0


class Changed:
    """A subscription to a Redis channel; ``until`` checks a condition after each message."""

    def __init__(self, redis: Redis, channel: str) -> None:
        self._subscription = redis.pubsub()  # type: ignore[no-untyped-call]
        self._subscription.subscribe(channel)
        self._subscription.get_message(timeout=5)

    def until(self, holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Waits until ``holds()``; checks it at once, after each message, and every half second without one."""
        deadline = time.monotonic() + patience_s
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"timeout after {patience_s:.0f} s: {what}")
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
    """Reads the process' standard output until a line contains ``words``; returns the lines read."""
    assert process.stdout is not None
    lines: list[str] = []
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"the process ended before it printed {words!r}:\n{''.join(lines)}")
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"timeout after {patience_s:.0f} s without {words!r}:\n{''.join(lines)}")


def until_listening(process: subprocess.Popen[bytes], port: int, patience_s: float = PATIENCE_S) -> None:
    """Waits until the process accepts connections on this port of the loopback address."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the process ended with exit code {process.returncode}"
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        time.sleep(0.02)
    raise AssertionError(f"timeout after {patience_s:.0f} s: nothing listens on port {port}")


def until_gone(pids: list[int], patience_s: float = PATIENCE_S) -> None:
    """Waits until all these processes have ended, as the kernel reports."""

    deadline = time.monotonic() + patience_s
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ready, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"process {pid} is still running"
        finally:
            os.close(handle)


def family(pid: int) -> list[int]:
    """The ids of the process and all its descendants."""
    below = [
        int(child) for tasks in Path(f"/proc/{pid}/task").glob("*/children") for child in tasks.read_text().split()
    ]
    return [pid, *(one for child in below for one in family(child))]
