"""``lamanas gc``: remove what is kept and needed no more."""

import argparse
from typing import Any

from app.settings import Settings
from app.store import leftovers
from app.store.errors import ForeignObjects
from cli import installation
from cli.errors import told

DESCRIPTION = """Remove runs that ended more than LAMANAS_KEEP_DAYS ago with their checkpoints, keys that were revoked
before then, and stored bytes that no episode names. Workers do so once an hour.

example: lamanas gc --dry-run"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "gc",
        help="remove old runs, revoked keys and leftovers",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dry-run", action="store_true", help="only list what would be removed")


def run(args: argparse.Namespace) -> int:
    count = 0
    with installation.store() as store:
        try:
            for found in leftovers.remove(Settings(), store, dry_run=args.dry_run):
                print(found)
                count += 1
        except ForeignObjects as error:
            raise told(error) from error
    print(f"{'would remove' if args.dry_run else 'removed'} {count}")
    return 0
