"""``lamanas predict``: classify images with an episode's classifier."""

import argparse
from pathlib import Path
from time import sleep
from typing import Any

from cli import remote, show
from cli.predictions import add_images, image_files, print_predictions
from lamanas_client import Client, Prediction, ProblemError

DESCRIPTION = """Classify image files with an episode's classifier. Waits for it if it is not ready yet.

example: lamanas predict 01k8d9w3v4q2x6y7z8a9b0c1d2 asked/*.png"""

# The service itself has waited before it responds that an episode is not ready yet.
PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="classify images with an episode's classifier",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("episode", metavar="EPISODE", help="the id that `lamanas adapt` and `lamanas episodes` print")
    add_images(parser)
    show.add_json(parser)


def run(args: argparse.Namespace) -> int:
    files = image_files(args.images)
    with remote.service() as client:
        predictions = _predictions(client, args.episode, files)
    print_predictions(files, predictions, json=args.json)
    return 0


def _predictions(client: Client, id: str, images: list[Path]) -> list[Prediction]:
    """The predictions, however long the episode takes. Raises LamanasError.

    The episode's events would say when it is ready, but a key with only the scope predict has no access to them.
    """
    while True:
        try:
            return client.predict(id, images)
        except ProblemError as error:
            if error.kind != "not-ready":
                raise
            sleep(min(error.retry_after or PAUSE_S, LONGEST_PAUSE_S))
