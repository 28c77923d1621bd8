"""``lamanas episodes``: list, show and delete episodes."""

import argparse
from typing import Any

from cli import numbers, remote, show
from cli.adapt import print_episode

DESCRIPTION = """List the newest episodes, show one, or delete some.

example: lamanas episodes --limit 5"""
SHOW = "example: lamanas episodes show 01k8d9w3v4q2x6y7z8a9b0c1d2"
DELETE = "example: lamanas episodes delete 01k8d9w3v4q2x6y7z8a9b0c1d2"


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "episodes",
        help="list, show and delete episodes",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--limit", type=numbers.count, default=20, help="how many to list (default: 20)")
    show.add_json(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    one = actions.add_parser("show", help="show the state and the results of an episode", description=SHOW)
    one.add_argument("episode", metavar="EPISODE")
    show.add_json(one, default=argparse.SUPPRESS)
    delete = actions.add_parser("delete", help="delete episodes and their data", description=DELETE)
    delete.add_argument("episodes", nargs="+", metavar="EPISODE")
    show.add_json(delete, default=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    {"show": _show, "delete": _delete, None: _list}[args.action](args)
    return 0


def _list(args: argparse.Namespace) -> None:
    with remote.service() as client:
        episodes = client.list_episodes(args.limit)
    if args.json:
        show.print_json(episodes)
        return
    rows = [
        (one.id, one.state, show.moment(one.created_at), len(one.classes), sum(one.shots.values()), one.name or "-")
        for one in episodes
    ]
    show.print_table(("episode", "state", "created", "classes", "images", "name"), rows)


def _show(args: argparse.Namespace) -> None:
    with remote.service() as client:
        episode = client.get_episode(args.episode)
    if args.json:
        show.print_json(episode)
    else:
        print_episode(episode)


def _delete(args: argparse.Namespace) -> None:
    with remote.service() as client:
        for id in args.episodes:
            client.delete_episode(id)
            if not args.json:
                print(f"episode {id} is deleted")
    if args.json:
        show.print_json({"deleted": args.episodes})
