"""``lamanas token``: print the admin token of this installation."""

import argparse
from typing import Any

from app.settings import Settings
from cli import admin, show
from cli.errors import CommandError


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "token",
        help="print the admin token",
        description="Print the admin token that the first start created.",
        epilog='example: curl -H "Authorization: Bearer $(lamanas token)" http://127.0.0.1:8000/models',
    )
    show.add_json(parser)


def run(args: argparse.Namespace) -> int:
    settings = Settings()
    token = admin.read(settings)
    if token is None:
        raise CommandError(
            f"there is no {settings.admin_token_file}: the first `lamanas serve` creates it; "
            "if that ran with another LAMANAS_DATA_DIR, set the same one here"
        )
    if args.json:
        show.print_json({"token": token})
    else:
        print(token)
    return 0
