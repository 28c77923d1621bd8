"""``lamanas worker adapt|train``: run one worker with its pool."""

import argparse
import os
import socket
from typing import Any

from app.settings import Settings
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE, LaterRelease
from cli.errors import CommandError


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "worker",
        help="run one worker alone (for compose)",
        description="Run a worker of one queue until SIGTERM; its Redis is REDIS_URL.",
        epilog="example: REDIS_URL=redis://127.0.0.1:6379/0 lamanas worker adapt",
    )
    parser.add_argument("queue", choices=["adapt", "train"])
    parser.add_argument("--check", action="store_true", help="only check the heartbeats of workers on this host")


def run(args: argparse.Namespace) -> int:
    settings = Settings()
    if args.check:
        return _check(settings, args.queue)
    os.environ["LAMANAS_DATA_DIR"] = str(settings.data_dir)  # .env may set it; backbones are found by it
    _refuse_later_release(settings)
    from workers.main import run as work
    from workers.main import worker_app

    return work(worker_app(settings), settings, args.queue)


def _refuse_later_release(settings: Settings) -> None:
    """Raises CommandError. If Redis is not there yet, the pool finds out when it is."""
    store = SyncStore.open(settings)
    try:
        store.installation.schema()
    except LaterRelease as error:
        raise CommandError(str(error)) from error
    except UNAVAILABLE:
        pass
    finally:
        store.close()


def _check(settings: Settings, queue: str) -> int:
    store = SyncStore.open(settings)
    try:
        if store.workers.count_on_host(queue, socket.gethostname()):
            return 0
    except UNAVAILABLE as error:
        raise CommandError(f"Redis does not respond: {error}") from error
    finally:
        store.close()
    raise CommandError(f"no {queue} worker on this host has a fresh heartbeat")
