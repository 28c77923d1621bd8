"""``lamanas evaluate``: measure the accuracy of a meta-model on episodes of a data set."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli import numbers
from cli.errors import CommandError, told

DESCRIPTION = """Adapt to episodes of a data set and classify each query alone, through the artifact.

example: lamanas evaluate --data ../shared/omniglot --split test --ways 20 --shots 5 --episodes 200 --json"""


def add_parser(commands: Any) -> None:
    """Options of ``lamanas evaluate``."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a model's accuracy on episodes of a data set",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("LAMANAS_OMNIGLOT"), help="the data set")
    parser.add_argument("--model", type=Path, help="folder of model.safetensors and model.json; default: shipped model")
    parser.add_argument("--split", choices=("train", "val", "test", "all"), default="test")
    parser.add_argument("--ways", type=numbers.between(2, 10_000), default=20)
    for name, default in (("shots", 5), ("queries", 5), ("episodes", 200)):
        parser.add_argument(f"--{name}", type=numbers.count, default=default)
    parser.add_argument("--seed", type=numbers.seed, default=0)
    parser.add_argument("--threads", type=numbers.threads, default=1)
    parser.add_argument("--steps", type=numbers.between(0, 10_000), help="K; default: the model's own")
    parser.add_argument("--within-alphabet", action="store_true", help="all classes of an episode from one alphabet")
    parser.add_argument("--uneven", action="store_true", help="a class has any number of images from 1 to --shots")
    parser.add_argument(
        "--ablate",
        action="store_true",
        help="compare parts of the adaptation on the same episodes; always prints JSON",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the accuracy with its 95 % confidence interval; returns 0."""
    import torch

    from lamanas_core.data.folders import load_all, load_dataset
    from lamanas_core.devices import choose_device
    from lamanas_core.measure.ablate import ablate
    from lamanas_core.measure.evaluate import EvaluationConfig, evaluate
    from lamanas_core.meta_model import MetaModel, read, shipped
    from lamanas_core.train.run_folder import read_split

    if args.data is None:
        raise CommandError("no data set: give --data or set LAMANAS_OMNIGLOT")
    torch.set_num_threads(args.threads)
    try:
        model = MetaModel.from_bytes(*shipped()) if args.model is None else read(args.model)
        config = EvaluationConfig(
            args.ways,
            args.shots,
            args.queries,
            args.episodes,
            args.seed,
            args.steps,
            args.within_alphabet,
            args.uneven,
            choose_device(args.device),
        )
        image = model.config.network.image
        if args.split == "all":
            classes = load_all(args.data, image)
        else:
            # The split that the run was trained with: a split by another seed would leak training classes.
            split = None if args.model is None else read_split(args.model, data=args.data)
            classes = load_dataset(args.data, image, split=split)[args.split]
        if args.ablate:
            compared = ablate(model, classes, config, lambda n: _show(n, args.episodes))
            print(json.dumps(asdict(config) | {"split": args.split, "model_version": model.version} | compared))
            return 0
        result = evaluate(model, classes, config, lambda n: _show(n, args.episodes))
    except (ValueError, OSError) as error:
        raise told(error) from error
    if args.json:
        print(json.dumps(result.to_json(model, config) | {"split": args.split}))
    else:
        print(
            f"{100 * result.accuracy:.2f} % ± {100 * result.ci95:.2f} "
            f"({args.episodes} episodes, {args.ways}-way {args.shots}-shot, {args.split})"
        )
    return 0


def _show(done: int, episodes: int) -> None:
    if sys.stderr.isatty():
        print(f"episode {done}/{episodes}", end="\n" if done == episodes else "\r", file=sys.stderr, flush=True)
