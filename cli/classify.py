"""``lamanas classify``: classify images with a downloaded classifier, without a service."""

import argparse
from pathlib import Path
from typing import Any

from cli import show
from cli.errors import CommandError, told
from cli.predictions import add_images, image_files, print_predictions
from lamanas_client import Prediction
from lamanas_core.artifact import ArtifactError, Classifier
from lamanas_core.backbones.storage import BackboneError
from lamanas_core.image_files import ImageError
from lamanas_core.image_spec import MAX_PIXELS
from lamanas_core.images import load

DESCRIPTION = """Classify image files with a downloaded classifier, on this machine and without a service.

The predictions are those of `lamanas predict` for the episode that the file was saved from.

example: lamanas classify model.onnx asked/*.png"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "classify",
        help="classify images with a downloaded classifier, without a service",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="the file that `lamanas export` has saved")
    add_images(parser)
    show.add_json(parser)


def run(args: argparse.Namespace) -> int:
    classifier = _opened(args.model)
    files = image_files(args.images)
    predictions = [_prediction(classifier, file) for file in files]
    print_predictions(files, predictions, json=args.json)
    return 0


def _opened(path: Path) -> Classifier:
    """Raises CommandError."""
    try:
        return Classifier.from_bytes(path.read_bytes())
    except OSError as error:
        raise told(error) from error
    except (ArtifactError, BackboneError) as error:
        raise CommandError(f"{path}: {error}") from error


def _prediction(classifier: Classifier, path: Path) -> Prediction:
    """Raises CommandError."""
    try:
        image = load(path.read_bytes(), classifier.image, max_pixels=MAX_PIXELS)
    except OSError as error:
        raise told(error) from error
    except ImageError as error:
        raise CommandError(f"{path}: {error}") from error
    answers = classifier.answers(image[None])
    row = answers.probabilities[0].tolist()
    best = max(range(len(row)), key=row.__getitem__)
    return Prediction(
        label=classifier.classes[best],
        probability=row[best],
        probabilities=dict(zip(classifier.classes, row, strict=True)),
        novelty=None if answers.novelty is None else float(answers.novelty[0]),
        known=None if answers.known is None else bool(answers.known[0]),
    )
