"""``lamanas bench``: measure how fast this machine adapts, predicts and trains."""

import argparse
import json
import sys
from typing import Any

from cli import numbers
from cli.errors import CommandError

DESCRIPTION = """Measure the speed of this machine and of a plain implementation of the same work. Prints JSON.

example: lamanas bench adapt --threads 1 --runs 5 --json"""

WHAT = {
    "adapt": "K steps of preset paper and of the plain reference, and a whole adaptation of the shipped model",
    "predict": "an artifact on 1, 20 and 100 images, and the same network in PyTorch",
    "photos": "from files of photos to a classifier and to an answer, and logistic regression on the same features",
    "train": "tasks per second of Algorithms 1 and 2",
    "serve": "requests per second of the app, of LitServe and of a plain app; adaptations per minute; memory",
}


def add_parser(commands: Any) -> None:
    """Options of ``lamanas bench``."""
    parser = commands.add_parser(
        "bench",
        help="measure how fast this machine adapts, predicts and trains",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, words in WHAT.items():
        kind = kinds.add_parser(name, help=words, description=words)
        if name == "serve":
            kind.add_argument("--seconds", type=numbers.count, default=3, help="length of each measurement; default: 3")
            kind.add_argument("--rounds", type=numbers.count, default=3, help="repetitions of each; default: 3")
        else:
            kind.add_argument(
                "--threads", type=numbers.threads, default=1, help="threads of each computation; default: 1"
            )
            kind.add_argument("--runs", type=numbers.count, default=5, help="timed runs of each; default: 5")
        kind.add_argument("--json", action="store_true", help="print one line; default: indented")


def run(args: argparse.Namespace) -> int:
    """Prints the measurements; returns 0."""
    found = _served(args) if args.what == "serve" else _computed(args)
    json.dump(_rounded(found), sys.stdout, indent=None if args.json else 2)
    print()
    return 0


def _served(args: argparse.Namespace) -> dict[str, Any]:
    from benchmarks import serve
    from benchmarks.installation import StartError
    from benchmarks.load import LoadError

    try:
        return serve.measure(args.seconds, args.rounds)
    except (LoadError, StartError) as error:
        raise CommandError(str(error)) from error


def _computed(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    import benchmarks.adapt
    import benchmarks.photo_speed
    import benchmarks.predict
    import benchmarks.train

    torch.set_num_threads(args.threads)
    measure = {
        "adapt": benchmarks.adapt.measure,
        "predict": benchmarks.predict.measure,
        "photos": benchmarks.photo_speed.measure,
        "train": benchmarks.train.measure,
    }[args.what]
    return measure(args.runs)


def _rounded(value: Any) -> Any:
    """The value with all floats rounded to four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value
