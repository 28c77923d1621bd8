"""Fault points: places where a test can stop a worker, at the moments when its loss is hardest to handle.

A process that reaches an armed point is stopped (SIGSTOP, all its threads) until the test kills or continues it. The
environment variable ``LAMANAS_TEST_FAULTS`` names a folder; a file in it arms the point of the same name, for the
episode whose id it contains, or for any episode if it is empty. The process that reaches the point renames the file, so
that each file stops one process once, and writes its process id and the episode's id to ``<point>.stopped``.
"""

import logging
import os
import signal
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)
VARIABLE = "LAMANAS_TEST_FAULTS"
Point = Literal["adapted", "committed"]


def reach(point: Point, id: str) -> None:
    """Returns at once unless a test has armed this point for this id."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return
    armed = Path(folder) / point
    try:
        if armed.read_text() not in ("", id):
            return
        armed.rename(armed.with_suffix(".taken"))  # only one of several processes succeeds
    except FileNotFoundError:
        return
    log.warning("stopped by a test at %r with %s", point, id)
    stopped = armed.with_suffix(".stopped")
    draft = armed.with_suffix(".draft")
    draft.write_text(f"{os.getpid()} {id}")
    draft.rename(stopped)
    os.kill(os.getpid(), signal.SIGSTOP)
