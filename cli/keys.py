"""``lamanas keys``: create, list and revoke API keys."""

import argparse
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from app.store.errors import NotFound
from app.store.records import SCOPES, KeyRecord
from cli import installation, show
from cli.errors import CommandError

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_CHARACTERS = 200


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "keys",
        help="create, list and revoke API keys",
        description="Create, list and revoke API keys of the installation that uses this data directory or REDIS_URL.",
        epilog="example: lamanas keys make camera-7 --scope predict --tenant shop",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    make = actions.add_parser("make", help="create a key and print its token, which is not shown again")
    make.add_argument("name", help="a description for people: the owner or the purpose")
    make.add_argument(
        "--scope",
        action="append",
        choices=sorted(SCOPES),
        help="a permission, repeatable: episodes (create, read, delete), predict, metrics, admin "
        "(default: episodes and predict)",
    )
    make.add_argument("--tenant", help="keys of the same tenant share their episodes (default: a new tenant)")
    listing = actions.add_parser("list", help="list all keys, oldest first")
    revoke = actions.add_parser("revoke", help="revoke a key: it is refused from now on")
    revoke.add_argument("id", help="as `lamanas keys list` shows it")
    for action in (make, listing, revoke):
        show.add_json(action)


def run(args: argparse.Namespace) -> int:
    if args.action == "make":
        _check(args)
    with installation.store() as store:
        if args.action == "make":
            scopes = args.scope or sorted(SCOPES - {"admin", "metrics"})
            key, token = store.api_keys.create(args.name, scopes, tenant=args.tenant)
            if args.json:
                show.print_json(_plain(key) | {"token": token})
                return 0
            print(f"key {key.id} of tenant {key.tenant}: {' '.join(sorted(key.scopes))}")
            print(f"token, not shown again: {token}")
        elif args.action == "list":
            found = store.api_keys.all()
            if args.json:
                show.print_json([_plain(key) for key in found])
                return 0
            for line in _table(found):
                print(line)
        else:
            try:
                key = store.api_keys.revoke(args.id)
            except NotFound as error:
                raise CommandError(f"{error}; `lamanas keys list` lists the ids") from error
            if args.json:
                show.print_json(_plain(key))
                return 0
            print(f"key {key.id} ({key.name}) is revoked")
    return 0


def _check(args: argparse.Namespace) -> None:
    if not args.name.strip() or not args.name.isprintable() or len(args.name) > MOST_CHARACTERS:
        raise CommandError(f"a name has 1 to {MOST_CHARACTERS} printable characters")
    if args.tenant is not None and not TENANT.fullmatch(args.tenant):
        raise CommandError("a tenant's name has up to 64 letters, digits, dots, dashes and underscores")


def _plain(key: KeyRecord) -> dict[str, Any]:
    return asdict(key) | {"scopes": sorted(key.scopes)}


def _table(keys: list[KeyRecord]) -> Iterator[str]:
    yield f"{'id':26}  {'state':7}  {'created (UTC)':16}  {'scopes':22}  {'tenant':26}  name"
    for key in keys:
        made = datetime.fromtimestamp(key.created_at, UTC).strftime("%Y-%m-%d %H:%M")
        state = "revoked" if key.revoked else "valid"
        yield f"{key.id}  {state:7}  {made}  {' '.join(sorted(key.scopes)):22}  {key.tenant:26}  {key.name}"
