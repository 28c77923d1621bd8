"""``lamanas datasets``: data sets in the object store, for training on any machine of an installation."""

import argparse
import re
from pathlib import Path
from typing import Any

from app.schemas.requests import DATASET_NAME
from app.settings import Settings
from app.store.errors import NotFound
from cli import installation, show
from cli.errors import CommandError, told

DESCRIPTION = """List the data sets in the object store of the installation that uses this data directory or
REDIS_URL, add one, or remove one. Workers on any machine can train on them. A worker also finds the folders in
`datasets` in the data directory of its own machine, which are not listed here, and takes these first.

example: lamanas datasets --json"""
ADD = """Store a folder of images, in place of the data set that was stored by this name.

example: lamanas datasets add my-images --name parts"""
REMOVE = """Remove a stored data set. Runs that are training on it go on where they are, but not on another machine.

example: lamanas datasets remove parts"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "datasets",
        help="list, add and remove data sets that any worker can train on",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_json(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    add = actions.add_parser(
        "add",
        help="store a folder of images",
        description=ADD,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add.add_argument("folder", type=Path, metavar="FOLDER")
    add.add_argument("--name", help="what to call it (default: the folder's name)")
    remove = actions.add_parser(
        "remove",
        help="remove a stored data set",
        description=REMOVE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    remove.add_argument("name", metavar="NAME")
    for parser in (add, remove):
        show.add_json(parser, default=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    if args.action == "add":
        return _add(args)
    if args.action == "remove":
        return _remove(args)
    with installation.store() as store:
        names = store.folders.datasets()
    if args.json:
        show.print_json(names)
    else:
        print("\n".join(names) or "no data set is stored")
    return 0


def _remove(args: argparse.Namespace) -> int:
    with installation.store() as store:
        try:
            store.folders.remove_dataset(args.name)
        except NotFound as error:
            raise CommandError(str(error)) from error
    if args.json:
        show.print_json({"name": args.name})
    else:
        print(f"removed {args.name}")
    return 0


def _add(args: argparse.Namespace) -> int:
    name = args.name or args.folder.resolve().name
    if not re.fullmatch(DATASET_NAME, name):
        raise CommandError(
            f"{name!r} cannot name a data set: use letters, digits, dots, dashes and underscores (--name)"
        )
    try:
        scratch = Settings().data_dir
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with installation.store() as store:
            files = store.folders.put_dataset(name, args.folder, scratch)
    except (OSError, ValueError) as error:
        raise told(error) if isinstance(error, OSError) else CommandError(str(error)) from error
    if args.json:
        show.print_json({"name": name, "files": files})
    else:
        print(f"stored {name}, {files} files\n\ntrain on it:  lamanas train start {name}")
    return 0
