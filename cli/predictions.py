"""What ``lamanas predict`` and ``lamanas classify`` have in common: the images they are given, which ``lamanas adapt``
takes as well, and their output."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from cli import show
from cli.errors import CommandError, told
from lamanas_client import Prediction
from lamanas_core import layout


def add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="PNG, JPEG, WebP, GIF, HEIC, AVIF, BMP or TIFF files, or folders of them",
    )


def image_files(given: Iterable[Path]) -> list[Path]:
    """The given files. A folder is replaced by its images in natural order; what it has besides is named.

    Raises CommandError for a folder that has no images or cannot be read.
    """
    return [file for path in given for file in (_inside(path) if path.is_dir() else [path])]


def print_predictions(files: Sequence[Path], predictions: Sequence[Prediction], *, json: bool) -> None:
    """Prints a line for each image, or one line of JSON."""
    pairs = list(zip(files, predictions, strict=True))
    if json:
        show.print_json([{"image": str(path), **prediction.model_dump()} for path, prediction in pairs])
        return
    rows = [(path, _verdict(found), show.percent(found.probability), _next_best(found)) for path, found in pairs]
    show.print_table(("image", "label", "probability", "next best"), rows)


def _inside(folder: Path) -> list[Path]:
    try:
        found = layout.read_folder(folder)
    except (OSError, ValueError) as error:
        raise told(error) from error
    names = layout.natural([*found.loose, *found.unlabelled, *(image.path for image in found.images)])
    if not names:
        raise CommandError(f"{folder} has no images")
    if found.skipped:
        show.print_notes([f"{folder}: {len(found.skipped)} skipped: {layout.listed(found.skipped)}"])
    return [folder / name for name in names]


def _verdict(prediction: Prediction) -> str:
    return f"none of these? ({prediction.label})" if prediction.known is False else prediction.label


def _next_best(prediction: Prediction) -> str:
    others = {label: value for label, value in prediction.probabilities.items() if label != prediction.label}
    best = max(others, key=others.__getitem__)
    return f"{best} {show.percent(others[best])}"
