"""``lamanas train``: meta-train on this machine or on a service."""

import argparse
import json
import os
import shlex
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import numbers, show, training
from cli.errors import CommandError, told

if TYPE_CHECKING:
    from lamanas_core.meta_model import MetaModel

HELP = "meta-train on Omniglot or a folder of class folders"
DESCRIPTION = """Meta-train and write model.safetensors and model.json (the card) to the run's folder.

With an ACTION, a service trains (see `lamanas login`) and registers the finished model there.

example: lamanas train --data ../shared/omniglot --run runs/omniglot"""


def add_parser(commands: Any) -> None:
    """Options of ``lamanas train``."""
    parser = commands.add_parser(
        "train", help=HELP, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    local = _add_local_options(parser.add_argument_group("training on this machine"))
    training.add_options(parser)
    training.add_actions(parser.add_subparsers(dest="action", metavar="ACTION"))
    parser.set_defaults(wrong=parser.error, local=local)


def _add_local_options(group: Any) -> dict[str, Any]:
    """Options for training on this machine; returns the defaults by their names in the namespace."""
    options = [
        group.add_argument("--data", type=Path, default=os.environ.get("LAMANAS_OMNIGLOT"), help="the data set"),
        group.add_argument("--run", type=Path, help="folder for checkpoints; resumed if it has one"),
        group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto"),
        group.add_argument("--threads", type=numbers.threads, default=1, help="CPU threads"),
        group.add_argument("--rotations", action=argparse.BooleanOptionalAction, help="add rotated classes"),
        group.add_argument("--resume", action="store_true", help="fail if --run has no checkpoint to resume"),
        group.add_argument(
            "--split", choices=("lake",), help="train on Omniglot's background alphabets alone (Lake's split)"
        ),
        group.add_argument("--start", help="a meta-model to start from: its folder, or `shipped`"),
        group.add_argument(
            "--pretrained", metavar="FILE", help="a ResNet-18's safetensors, for the stem of paper_resnet18"
        ),
        group.add_argument(
            "--backbone", metavar="timm:NAME", help="with preset photos: another backbone, downloaded with timm"
        ),
        group.add_argument(
            "--first-order", action="store_true", default=None, help="Algorithm 1 without second derivatives"
        ),
        group.add_argument(
            "--skip-damaged", action="store_true", default=None, help="leave out images that cannot be read"
        ),
        *(group.add_argument(f"--{name}", type=int) for name in ("warm-up-epochs", "warm-up-batch", "meta-batch")),
    ]
    return {option.dest: option.default for option in options}


def run(args: argparse.Namespace) -> int:
    """Trains; returns 0 when finished, 130 when interrupted (run again to resume)."""
    if args.action is not None:
        _refuse_what_would_be_ignored(args)
        return training.run(args)
    if args.run is None:
        args.wrong("the following arguments are required: --run (or an ACTION)")
    return _train_here(args)


def _refuse_what_would_be_ignored(args: argparse.Namespace) -> None:
    ignored = args.local if args.action == "start" else args.local | dict.fromkeys(training.OPTIONS)
    given = [f"--{name.replace('_', '-')}" for name, default in ignored.items() if vars(args)[name] != default]
    if given:
        args.wrong(f"{args.action} trains on a service, which does not support {', '.join(given)}")


def _train_here(args: argparse.Namespace) -> int:
    from lamanas_core.train import checkpoint

    if args.data is None:
        raise CommandError("no data set: give --data or set LAMANAS_OMNIGLOT")
    if args.resume and not (args.run / checkpoint.FILE).is_file():
        raise CommandError(f"--resume: {args.run} has no checkpoint; without --resume a new run starts there")
    try:
        model = _trained(args)
    except (ValueError, OSError) as error:
        raise told(error) from error
    except KeyboardInterrupt:
        print(f"\nstopped; the same command resumes from the last checkpoint in {args.run}", file=sys.stderr)
        return 130
    if model is not None:
        for part in model.card["data"].values():
            for words in part.get("damaged", ()) if isinstance(part, dict) else ():
                print(f"left out: {words}", file=sys.stderr)
        print(json.dumps({"version": model.version, **model.card["metrics"]}))
    return 0


def _exported(source: str) -> str:
    from lamanas_core.backbones.storage import own_file
    from lamanas_core.backbones.timm_models import exported

    name = exported(source)
    print(f"the backbone is {own_file(name)}; `lamanas models add` stores it with the model", file=sys.stderr)
    return name


def _trained(args: argparse.Namespace) -> "MetaModel | None":
    """The model, written to the run's folder; None in every process of torchrun but the first."""
    import torch

    from lamanas_core.config import TrainingConfig
    from lamanas_core.data.folders import notes
    from lamanas_core.devices import choose_device
    from lamanas_core.meta_model import write
    from lamanas_core.train.distributed import joined
    from lamanas_core.train.loop import TrainingProgress, train

    def progressed(progress: TrainingProgress) -> None:
        known = training.words(progress.loss, progress.validation_accuracy, progress.eta_seconds)
        show.print_bar(progress.epoch, progress.epochs, known)

    torch.set_num_threads(args.threads)
    chosen = {f.name: value for f in fields(TrainingConfig) if (value := getattr(args, f.name, None)) is not None}
    config, device = TrainingConfig.from_request(chosen), choose_device(args.device)
    if args.backbone is not None:
        config = replace(config, backbone=_exported(args.backbone))
    with joined(device) as ranks:
        if ranks.first:
            show.print_notes(notes(args.data))
        model = train(
            config,
            args.data,
            args.run,
            device=device,
            on_progress=progressed,
            should_stop=lambda: False,
            ranks=ranks,
        )
    if not ranks.first:
        return None
    model.card["provenance"]["command"] = shlex.join(["lamanas", *sys.argv[1:]])
    write(model, args.run)
    return model
