"""Polling for conditions that are not announced: files, processes, responses."""

import time
from collections.abc import Callable

from tests.waiting import PATIENCE_S

POLL_S = 0.05


def until(holds: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Waits until ``holds()``."""
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"timeout after {patience_s:.0f} s: {what}")
        time.sleep(POLL_S)
