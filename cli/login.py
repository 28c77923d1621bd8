"""``lamanas login``: sign in to a service, for the commands that talk to one."""

import argparse
import getpass
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cli import remote, show
from cli.errors import CommandError
from lamanas_client.connecting import invalid_token, on_this_machine

DESCRIPTION = """Check a service's URL and a token, and store them for the commands that talk to a service.

The URL may be the link that `lamanas serve` prints, which contains the token. Otherwise the command prompts for the
token, or reads it from standard input. Without a URL, it signs in to the service on this machine, as its admin.

example: lamanas token | lamanas login http://127.0.0.1:8000"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "login",
        help="sign in to a service",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", nargs="?", metavar="URL", help="such as https://lamanas.example.org")
    show.add_json(parser)


def run(args: argparse.Namespace) -> int:
    login = remote.local() if args.url is None else _given(args.url)
    with remote.client(login) as client:
        session = client.session()
    path = remote.keep(login)
    if args.json:
        show.print_json({"url": login.url, "name": session.name, "scopes": session.scopes, "file": str(path)})
        return 0
    print(f"signed in to {login.url} as {session.name} ({', '.join(session.scopes)})")
    print(f"stored in {path}; delete that file to sign out")
    return 0


def _given(url: str) -> remote.Login:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise CommandError(f"{url} is not the URL of a service: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CommandError(f"{url} is not the URL of a service: it must start with http:// or https://")
    if parts.scheme == "http" and not on_this_machine(parts.hostname):
        print(f"warning: the token goes to {parts.hostname} unencrypted; use https:// if it can", file=sys.stderr)
    remote.require_listener(url)
    linked = parse_qs(parts.fragment).get("token")
    token = linked[0] if linked else _asked()
    if wrong := invalid_token(token):
        raise CommandError(wrong)
    return remote.Login(parts._replace(query="", fragment="").geturl().rstrip("/"), token)


def _asked() -> str:
    token = getpass.getpass("token: ") if sys.stdin.isatty() else sys.stdin.readline()
    return token.strip()
