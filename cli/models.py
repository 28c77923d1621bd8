"""``lamanas models``: list, switch, add and remove versions of the meta-model."""

import argparse
from pathlib import Path
from typing import Any

from app.store.errors import Conflict, NotFound
from cli import installation, remote, show
from cli.errors import CommandError, told
from lamanas_client import Model

DESCRIPTION = """List the versions of the meta-model, switch to another for new episodes, add your own, or remove one.
One for drawings and one for photos can be active at the same time.

example: lamanas models --json"""
ACTIVATE = "example: lamanas models activate 0123456789abcdef"
ADD = """Add a model that `lamanas train` wrote to its folder to the installation that uses this data directory or
REDIS_URL, whichever service you are signed in to.

example: lamanas models add runs/mine"""
REMOVE = """Remove a version from the installation that uses this data directory or REDIS_URL. It must be neither active
nor used by an episode. A version that is shipped comes back when a worker starts.

example: lamanas models remove 0123456789abcdef"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "models",
        help="list, switch, add and remove versions of the meta-model",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_json(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    activate = actions.add_parser("activate", help="adapt new episodes from this version", description=ACTIVATE)
    activate.add_argument("version", metavar="VERSION")
    add = actions.add_parser(
        "add",
        help="add a model that was trained on this machine",
        description=ADD,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add.add_argument("run", type=Path, metavar="RUN", help="folder of model.safetensors and model.json")
    remove = actions.add_parser(
        "remove",
        help="remove a version that no episode uses",
        description=REMOVE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    remove.add_argument("version", metavar="VERSION")
    for parser in (activate, add, remove):
        show.add_json(parser, default=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    if args.action == "add":
        return _add(args)
    if args.action == "remove":
        return _remove(args)
    with remote.service() as client:
        if args.action == "activate":
            model = client.activate_model(args.version)
        else:
            models = client.list_models()
    if args.action == "activate":
        if args.json:
            show.print_json(model)
        else:
            print(f"new episodes of {model.kind} are adapted from {model.version}; existing episodes keep theirs")
    elif args.json:
        show.print_json(models)
    else:
        show.print_table(("version", "kind", "active", "created", "metrics"), [_row(model) for model in models])
    return 0


def _add(args: argparse.Namespace) -> int:
    # Slow to import, as torch is.
    from app.schemas.responses import Model
    from lamanas_core import meta_model
    from workers import learner

    try:
        model = meta_model.read(args.run)
    except FileNotFoundError as error:
        raise CommandError(
            f"there is no {error.filename}: `lamanas train` writes it to its --run folder when it finishes"
        ) from error
    except OSError as error:
        raise told(error) from error
    except ValueError as error:
        raise CommandError(f"{args.run}: {error}") from error
    with installation.store() as store:
        learner.register(store, model)
        added = Model.of(store.models.get(model.version))
    if args.json:
        show.print_json(added)
    else:
        use = "it is active" if added.active else f"use it:  lamanas models activate {added.version}"
        print(f"added {added.version}, for {added.kind}\n\n{use}")
    return 0


def _remove(args: argparse.Namespace) -> int:
    with installation.store() as store:
        try:
            store.models.remove(args.version)
        except (NotFound, Conflict) as error:
            raise CommandError(str(error)) from error
    if args.json:
        show.print_json({"version": args.version})
    else:
        print(f"removed {args.version}")
    return 0


def _row(model: Model) -> tuple[str, ...]:
    metrics = model.card.get("metrics", {})
    known = [f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, int | float)]
    return model.version, model.kind, "active" if model.active else "", show.moment(model.created_at), ", ".join(known)
