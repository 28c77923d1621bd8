"""``lamanas init``: create the secrets of a compose project. Existing ones are kept."""

import argparse
import secrets
from pathlib import Path
from typing import Any

from app.settings import Settings
from cli import admin
from cli.errors import told


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "init",
        help="create the secrets of a compose project",
        description="Create a password for Redis in FOLDER, and the first admin token in the data directory.",
        epilog="example: lamanas init --secrets /secrets",
    )
    parser.add_argument("--secrets", type=Path, required=True, metavar="FOLDER", help="folder for Redis' password")


def run(args: argparse.Namespace) -> int:
    try:
        _make(Settings(), args.secrets)
    except OSError as error:
        raise told(error) from error
    print("secrets are ready; the admin token: docker compose exec app lamanas token")
    return 0


def _make(settings: Settings, folder: Path) -> None:
    # Two different users read it, that of Redis and ours: only the volume itself protects it from others.
    password = admin.write_secret(folder / "redis-password", secrets.token_urlsafe(32), 0o444)
    admin.write_secret(folder / "redis.conf", f"requirepass {password}", 0o444)
    admin.mint(settings)
