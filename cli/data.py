"""``lamanas data``: fetch a data set from the network."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Options of ``lamanas data``."""
    parser = commands.add_parser(
        "data",
        help="fetch data sets",
        description="Download Omniglot.\n\nexample: lamanas data omniglot --to ~/omniglot",
    )
    parser.add_argument("name", choices=("omniglot",))
    parser.add_argument(
        "--to", type=Path, required=True, help="folder to put images_background and images_evaluation in"
    )


def run(args: argparse.Namespace) -> int:
    """Download and unpack both parts with torchvision; 0 when done."""
    from lamanas_core.learning.omniglot_download import download

    folder = download(args.to)
    print(f"{folder}: set LAMANAS_OMNIGLOT to it, or pass it as --data")
    return 0
