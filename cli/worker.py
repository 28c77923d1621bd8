"""``lamanas worker adapt|train``: one worker with its pool."""

import argparse
import socket
from typing import Any

from app.settings import Settings
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE
from cli.errors import CommandError


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "worker",
        help="run one worker alone (for compose)",
        description="Run a worker of one queue until SIGTERM; its Redis is REDIS_URL.",
        epilog="example: REDIS_URL=redis://127.0.0.1:6379/0 lamanas worker adapt",
    )
    parser.add_argument("queue", choices=["adapt", "train"])
    parser.add_argument("--check", action="store_true", help="only tell whether such a worker of this host beats")


def run(args: argparse.Namespace) -> int:
    settings = Settings()
    if args.check:
        return _check(settings, args.queue)
    from workers.main import run as work
    from workers.main import worker_app

    return work(worker_app(settings), settings, args.queue)


def _check(settings: Settings, queue: str) -> int:
    store = SyncStore.open(settings)
    try:
        if store.workers.count_on_host(queue, socket.gethostname()):
            return 0
    except UNAVAILABLE as error:
        raise CommandError(f"Redis does not answer: {error}") from error
    finally:
        store.close()
    raise CommandError(f"no {queue} worker of this host beats")
