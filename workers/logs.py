"""Logs and traces of workers."""

import logging
import os

from app.telemetry import logs, tracing


def set_up() -> None:
    """Call once in each process."""
    name = os.environ.get("LAMANAS_WORKER_NAME", "worker")
    logs.set_up(name)
    tracing.set_up(name)
    # Celery logs every wake-up that it receives; the tasks themselves log what they did.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
