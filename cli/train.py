"""``lamanas train``: meta-train on a data set, with a progress bar, checkpoints and resume."""

import argparse
import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from cli.errors import CommandError

HELP = "meta-train on Omniglot or a folder of class folders"
DESCRIPTION = """Meta-train and leave model.safetensors and model.json (the card) in the run's folder.

example: lamanas train --data ../shared/omniglot --run runs/omniglot"""


def add_parser(commands: Any) -> None:
    """Options of ``lamanas train``."""
    parser = commands.add_parser(
        "train", help=HELP, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("LAMANAS_OMNIGLOT"), help="the data set")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints; continued if it has one")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--preset", choices=("serving", "tiny"))
    parser.add_argument("--meta", choices=("maml", "reptile"))
    parser.add_argument("--loss", choices=("cross_entropy", "fnn", "lstm"))
    parser.add_argument("--residual", action=argparse.BooleanOptionalAction)
    parser.add_argument("--proxy", choices=("mse", "inner_product"))
    parser.add_argument("--rotations", action=argparse.BooleanOptionalAction, help="turned classes are classes too")
    for name in ("warm-up-epochs", "meta-epochs", "meta-batch", "ways", "shots", "seed"):
        parser.add_argument(f"--{name}", type=int)


def run(args: argparse.Namespace) -> int:
    """Train; 0 when finished, 130 when interrupted (start again to resume)."""
    import torch

    from lamanas_core.learning.devices import choose_device
    from lamanas_core.learning.meta_model import write
    from lamanas_core.learning.training import TrainingConfig, TrainingProgress, train

    if args.data is None:
        raise CommandError("no data set: give --data or set LAMANAS_OMNIGLOT")
    torch.set_num_threads(args.threads)
    chosen = {f.name: value for f in fields(TrainingConfig) if (value := getattr(args, f.name, None)) is not None}

    def show(progress: TrainingProgress) -> None:
        left = "" if progress.eta_seconds is None else f"{progress.eta_seconds / 60:6.1f} min left"
        accuracy = progress.validation_accuracy
        known = "   -  " if accuracy is None else f"{accuracy:.4f}"
        filled = 30 * progress.epoch // progress.epochs
        bar = "#" * filled + "-" * (30 - filled)
        end = "\r" if sys.stderr.isatty() and progress.epoch < progress.epochs else "\n"
        line = f"[{bar}] {progress.epoch}/{progress.epochs}  loss {progress.loss:.4f}  val {known}  {left}"
        print(line, end=end, file=sys.stderr, flush=True)

    try:
        config = TrainingConfig.from_request(chosen)
        model = train(
            config, args.data, args.run, device=choose_device(args.device), on_progress=show, should_stop=lambda: False
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on from the last checkpoint in {args.run}", file=sys.stderr)
        return 130
    write(model, args.run)
    print(json.dumps({"version": model.version, **model.card["metrics"]}))
    return 0
