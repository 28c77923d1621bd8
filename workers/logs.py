"""How workers log and trace."""

import logging
import os

from app.telemetry import logs, tracing


def set_up() -> None:
    """Call once in each process."""
    name = os.environ.get("LAMANAS_WORKER_NAME", "worker")
    logs.set_up(name)
    tracing.set_up(name)
    # Celery tells of every received wake-up; the tasks themselves say what came of it.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
