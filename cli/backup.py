"""``lamanas backup``: save everything that the service keeps to a file, while it runs."""

import argparse
from pathlib import Path
from typing import Any

from app.store.errors import Conflict
from cli import installation, show
from cli.errors import CommandError, told

DESCRIPTION = """Save what the installation that uses this data directory or REDIS_URL keeps to a new file: episodes,
models, keys and training runs in Redis, and everything in the object store. The service goes on meanwhile.

example: lamanas backup lamanas-$(date +%F).zip"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "backup",
        help="save everything that the service keeps to a file, while it runs",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a new zip file")
    show.add_json(parser)


def run(args: argparse.Namespace) -> int:
    try:
        with installation.store(installation.PATIENT_S) as store:
            keys, objects = store.backup.write(args.file)
    except Conflict as error:
        raise CommandError(str(error)) from error
    except FileExistsError as error:
        raise CommandError(f"{args.file} exists already: name a new file") from error
    except OSError as error:
        raise told(error) from error
    if args.json:
        show.print_json({"file": str(args.file), "keys": keys, "objects": objects})
    else:
        print(f"saved {keys} keys of Redis and {objects} objects to {args.file}")
    return 0
