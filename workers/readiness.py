"""How a pool process tells its parent that it is ready: by a file in memory, so that nothing that Redis loses matters.

The parent then sends the heartbeats. (Linux only, like ``cli.supervisor``.)
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from app.store.records import WorkerRecord, to_json

FILE = "LAMANAS_WORKER_READY"


class Readiness:
    """Created in the parent before its pool processes, which find the file by an environment variable."""

    def __init__(self) -> None:
        self._file = os.memfd_create("ready")
        os.environ[FILE] = f"/proc/{os.getpid()}/fd/{self._file}"

    def worker(self) -> WorkerRecord | None:
        """What the first pool process that is ready has announced; None until then."""
        announced = os.pread(self._file, 4096, 0)
        return WorkerRecord(**json.loads(announced)) if announced else None

    def close(self) -> None:
        os.close(self._file)


def announce(worker: WorkerRecord) -> None:
    """Tells the parent process that this one is ready."""
    Path(os.environ[FILE]).write_text(to_json(asdict(worker)))
