"""``lamanas restore``: put a backup into an empty installation."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.settings import Settings
from app.store.backup import BackupError
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE, Conflict
from cli import installation, private_redis, show
from cli.errors import CommandError, told
from cli.serve import REDIS_TIMEOUT_S, sole_user

DESCRIPTION = """Put a file that `lamanas backup` wrote into an empty installation, which must not be running: the one
of this data directory, whose private Redis is started for the time, or of REDIS_URL and LAMANAS_OBJECTS.

example: LAMANAS_DATA_DIR=new lamanas restore lamanas-2026-11-30.zip"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "restore",
        help="put a backup into an empty installation",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    show.add_json(parser)


def run(args: argparse.Namespace) -> int:
    settings = Settings()
    try:
        with _redis(settings), installation.store(installation.PATIENT_S) as store:
            keys, objects = store.backup.restore(args.file)
    except (BackupError, Conflict) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise told(error) from error
    if args.json:
        show.print_json({"keys": keys, "objects": objects})
    else:
        print(f"restored {keys} keys of Redis and {objects} objects")
    return 0


@contextmanager
def _redis(settings: Settings) -> Iterator[None]:
    """The Redis to restore into runs meanwhile: that of REDIS_URL, or the private one. Raises CommandError."""
    if not settings.embedded:
        yield
        return
    with sole_user(settings), private_redis.start(settings) as process:
        try:
            _until_it_responds(settings)
            yield
        finally:
            process.terminate()


def _until_it_responds(settings: Settings) -> None:
    store = SyncStore.open(settings)
    deadline = time.monotonic() + REDIS_TIMEOUT_S
    try:
        while True:
            try:
                return store.ping()
            except UNAVAILABLE as error:
                if time.monotonic() > deadline:
                    raise CommandError(f"the private Redis does not respond: {error}") from error
                time.sleep(0.05)
    finally:
        store.close()
