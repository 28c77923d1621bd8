"""``lamanas export``: save an episode's classifier as an ONNX file."""

import argparse
import os
from pathlib import Path
from typing import Any

from cli import remote, show
from cli.errors import CommandError
from lamanas_client import Client, Episode, ProblemError
from lamanas_core.files import write_whole

DESCRIPTION = """Save an episode's classifier as an ONNX file, waiting for it if it is not ready yet.

Any ONNX runtime can run the file; its metadata lists the classes and describes how images are prepared.

example: lamanas export 01k8d9w3v4q2x6y7z8a9b0c1d2 -o model.onnx"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="save an episode's classifier as an ONNX file",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("episode", metavar="EPISODE")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write")
    show.add_json(parser)


def run(args: argparse.Namespace) -> int:
    _require_place(args.output)
    with remote.service() as client:
        episode, data = _finished(client, args.episode)
        write_whole(args.output.resolve(), data)
    if args.json:
        show.print_json({"episode": episode.id, "file": str(args.output), "bytes": len(data)})
    else:
        print(f"{args.output}: {len(data):,} bytes, {len(episode.classes)} classes, model {episode.model_version}")
    return 0


def _require_place(path: Path) -> None:
    """Raises CommandError if the file could not be written: before waiting for the classifier."""
    if path.exists() and not path.is_file():
        raise CommandError(f"{path} exists and is not a file: name another with -o")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise CommandError(f"{path.parent} is not a writable folder: create it, or name another with -o")


def _finished(client: Client, id: str) -> tuple[Episode, bytes]:
    """The finished episode and its classifier. Raises LamanasError."""
    client.wait(id)
    try:
        data = client.download(id)
    except ProblemError as error:
        if error.kind != "not-ready":
            raise
        # The classifier was dropped to make room. This request has started its adaptation again.
        client.wait(id)
        data = client.download(id)
    return client.get_episode(id), data
