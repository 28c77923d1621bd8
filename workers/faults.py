"""Where a test may hold a worker: the moments at which losing it is hardest to get right.

A process that reaches an armed point stops (SIGSTOP, all its threads) until the test kills or continues it. The
environment alone arms nothing: ``LAMANAS_TEST_FAULTS`` names a folder, and a point is armed while a file of its name
lies there, with the id that it is for, or empty for any. Whoever reaches it takes the file away, so each file holds one
process once, and leaves ``<point>.held`` with its process id and the episode's id.
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
    """Goes on at once unless a test armed this point for this id."""
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
    log.warning("held by a test at %r with %s", point, id)
    held = armed.with_suffix(".held")
    draft = armed.with_suffix(".draft")
    draft.write_text(f"{os.getpid()} {id}")
    draft.rename(held)
    os.kill(os.getpid(), signal.SIGSTOP)
