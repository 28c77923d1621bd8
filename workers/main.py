"""Starts one worker: a Celery parent process with its reconciler, and a pool of processes."""

import logging
import os
import secrets
import socket
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from billiard.exceptions import WorkerLostError
from celery import Celery, signals
from celery.exceptions import SecurityWarning

from app.queue import celery_app
from app.settings import Settings
from app.store.records import Queue
from workers import logs
from workers.child import NAME, QUEUE
from workers.readiness import Readiness
from workers.reconciler import Reconciler
from workers.sweep import Sweep

log = logging.getLogger(__name__)
# Predictions have priority over adaptations, and both over training runs.
NICE: dict[Queue, int] = {"adapt": 10, "train": 15}


def worker_app(settings: Settings) -> Celery:
    """The Celery application of a worker; its pool processes import the same modules."""
    app = celery_app(settings)
    app.conf.imports = ("workers.tasks",)
    return app


def run(app: Celery, settings: Settings, queue: Queue) -> int:
    """Runs until SIGTERM or SIGINT, then finishes its job or hands a training run back. Returns the exit code.

    The parent process never imports torch; the pool processes do, with this environment.
    """
    name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    os.environ |= {NAME: name, QUEUE: queue}
    threads = settings.adapt_threads if queue == "adapt" else settings.train_threads
    # The numerical libraries read these when they are loaded.
    os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    lower_priority(NICE[queue])
    logs.set_up()
    # Celery warns about pickle when it runs as root; only JSON is accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    readiness = Readiness()
    reconciler = Reconciler(settings, queue, name, readiness.worker)
    sweep = Sweep(settings)
    handlers = _connect(reconciler, sweep)
    try:
        worker = app.Worker(
            hostname=f"{queue}@{name}",
            queues=[f"lamanas.{queue}"],
            concurrency=pool_processes(settings, queue),
            pool="prefork",
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        worker.start()
        return int(worker.exitcode or 0)
    finally:
        sweep.stop()
        reconciler.stop()
        readiness.close()
        del handlers


def pool_processes(settings: Settings, queue: Queue) -> int:
    """How many jobs the worker of this queue runs at a time."""
    return settings.adapt_processes if queue == "adapt" else 1


def lower_priority(nice: int) -> None:
    """Gives this process, and those it starts, a lower priority than the app and Redis.

    Linux distributes processor time among sessions first (sched_autogroup), and niceness only counts within one: if
    this process leads a session, the whole session is niced.
    """
    os.nice(nice)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # a kernel without autogroups
            Path("/proc/self/autogroup").write_text(str(nice))


def _connect(reconciler: Reconciler, sweep: Sweep) -> list[Any]:
    """Celery keeps weak references to signal handlers: keep what this returns."""

    def ready(**_: object) -> None:
        reconciler.start()
        sweep.start()

    def draining(**_: object) -> None:
        reconciler.drain()

    def failed(sender: Any = None, exception: object = None, args: Any = (), **_: object) -> None:
        if isinstance(exception, WorkerLostError) and args:
            log.warning("a pool process died in %s %s: %s", sender.name, args[0], exception)
            reconciler.child_died(sender.name, args[0])

    def no_logging(**_: object) -> None:
        """Keeps Celery from configuring logging."""

    signals.worker_ready.connect(ready)
    signals.worker_shutting_down.connect(draining)
    signals.task_failure.connect(failed)
    signals.setup_logging.connect(no_logging)
    return [ready, draining, failed, no_logging]
