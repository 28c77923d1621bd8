"""``lamanas models``: the versions of the meta-model that a service has."""

import argparse
from typing import Any

from cli import remote, show
from lamanas_client import Model

DESCRIPTION = """List the versions of the meta-model, or adapt new episodes from another one.

example: lamanas models --json"""
ACTIVATE = "example: lamanas models activate 0123456789abcdef"


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "models",
        help="list and switch versions of the meta-model",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_json(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    activate = actions.add_parser("activate", help="adapt new episodes from this version", description=ACTIVATE)
    activate.add_argument("version", metavar="VERSION")
    show.add_json(activate, default=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    with remote.service() as client:
        if args.action == "activate":
            model = client.activate_model(args.version)
        else:
            models = client.list_models()
    if args.action == "activate":
        if args.json:
            show.print_json(model)
        else:
            print(f"new episodes are adapted from {model.version}; those that exist keep theirs")
    elif args.json:
        show.print_json(models)
    else:
        show.print_table(("version", "active", "made", "metrics"), [_row(model) for model in models])
    return 0


def _row(model: Model) -> tuple[str, ...]:
    metrics = model.card.get("metrics", {})
    known = [f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, int | float)]
    return model.version, "active" if model.active else "", show.moment(model.created_at), ", ".join(known)
