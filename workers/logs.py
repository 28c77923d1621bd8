"""How workers log: one line each, to standard error."""

import logging
import os


def set_up() -> None:
    """Call once in each process."""
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s {os.environ.get('LAMANAS_WORKER_NAME', 'worker')} %(name)s: %(message)s",
        force=True,
    )
    # Celery tells of every received wake-up; the tasks themselves say what came of it.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
