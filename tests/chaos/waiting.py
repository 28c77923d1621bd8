"""Waiting for what other processes do and nobody announces: files, processes, answers."""

import time
from collections.abc import Callable

from tests.waiting import PATIENCE_S

LOOK_S = 0.05


def until(holds: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Returns once ``holds()`` is true."""
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s:.0f} s in vain: {what}")
        time.sleep(LOOK_S)
