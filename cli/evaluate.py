"""``lamanas evaluate``: measure the accuracy of a meta-model on episodes of a data set."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import numbers
from cli.errors import CommandError, told

if TYPE_CHECKING:
    from lamanas_core.meta_model import MetaModel

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
    parser.add_argument("--threads", type=numbers.threads, default=1)
    parser.add_argument("--steps", type=numbers.between(0, 10_000), help="K; default: the model's own")
    sampled = [
        parser.add_argument("--split", choices=("train", "val", "test", "all"), default="test"),
        parser.add_argument("--ways", type=numbers.between(2, 10_000), default=20),
        *(
            parser.add_argument(f"--{name}", type=numbers.count, default=default)
            for name, default in (("shots", 5), ("queries", 5), ("episodes", 200))
        ),
        parser.add_argument("--seed", type=numbers.seed, default=0),
        parser.add_argument(
            "--within-alphabet", action="store_true", help="all classes of an episode from one alphabet"
        ),
        parser.add_argument("--uneven", action="store_true", help="a class has any number of images from 1 to --shots"),
    ]
    parser.set_defaults(sampled={option.dest: option.default for option in sampled})
    comparison = parser.add_mutually_exclusive_group()
    comparison.add_argument(
        "--ablate",
        action="store_true",
        help="compare parts of the adaptation on the same episodes; always prints JSON",
    )
    comparison.add_argument(
        "--compare-steps",
        nargs="+",
        type=numbers.between(0, 10_000),
        metavar="K",
        help="compare these numbers of steps with the first of them on the same episodes; always prints JSON",
    )
    comparison.add_argument(
        "--told",
        action="store_true",
        help="compare what the service reports about an episode with the truth; always prints JSON",
    )
    comparison.add_argument(
        "--kinds",
        action="store_true",
        help="how often the service takes the images of an episode for photos; always prints JSON",
    )
    comparison.add_argument(
        "--unlabelled",
        type=numbers.count,
        metavar="N",
        help="what N further images of each class without a label add, on the same episodes; always prints JSON",
    )
    comparison.add_argument(
        "--one-shot-runs",
        action="store_true",
        help="the error on Lake's one-shot runs, of a model trained with `--split lake`",
    )
    parser.add_argument(
        "--others",
        type=numbers.count,
        metavar="M",
        help="with --unlabelled: also with M images of other classes, and with these alone",
    )
    parser.add_argument(
        "--restyled",
        action="store_true",
        help="with --compare-steps: redraw each episode in another style, as in training",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the accuracy with its 95 % confidence interval; returns 0."""
    import torch

    from lamanas_core.data.folders import ImageClasses, load_all, load_dataset
    from lamanas_core.devices import choose_device
    from lamanas_core.image_kinds import JUDGED
    from lamanas_core.image_spec import ImageSpec
    from lamanas_core.measure.ablate import ablate, compare_steps
    from lamanas_core.measure.evaluate import EvaluationConfig, evaluate
    from lamanas_core.measure.kinds import judged_kinds
    from lamanas_core.measure.told_and_true import told_and_true
    from lamanas_core.measure.unlabelled import compare_unlabelled
    from lamanas_core.meta_model import MetaModel, read, shipped
    from lamanas_core.train.trained_classes import recognised, split_of_run, trained_digests

    if args.data is None:
        raise CommandError("no data set: give --data or set LAMANAS_OMNIGLOT")
    if args.steps is not None and (args.ablate or args.compare_steps):
        raise CommandError(f"--steps has no effect on {'--ablate' if args.ablate else '--compare-steps'}: leave it out")
    if args.restyled and not args.compare_steps:
        raise CommandError("--restyled is for --compare-steps only")
    if args.others and not args.unlabelled:
        raise CommandError("--others is for --unlabelled only")
    ignored = [name for name, default in args.sampled.items() if vars(args)[name] != default]
    if args.one_shot_runs and ignored:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in ignored)
        raise CommandError(f"{named}: no effect on --one-shot-runs, which are a fixed set: leave it out")
    torch.set_num_threads(args.threads)
    try:
        model = MetaModel.from_bytes(*shipped()) if args.model is None else read(args.model)
        if args.one_shot_runs:
            return _one_shot_runs(model, args)
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
        image, digests = model.config.network.image, trained_digests(model.card)

        def loaded(spec: ImageSpec) -> ImageClasses:
            if args.split == "all":
                return load_all(args.data, spec)
            # The split that the run was trained with: a split by another seed would leak training classes.
            split = None if args.model is None else split_of_run(args.model, args.data, image, digests)
            return load_dataset(args.data, spec, split=split)[args.split]

        if args.kinds:
            found = judged_kinds(loaded(JUDGED), config, lambda n: _show(n, args.episodes))
            print(json.dumps(asdict(config) | {"split": args.split} | found))
            return 0
        classes = loaded(image)
        trained = recognised(classes, digests)
        if trained:
            _say_trained(trained, len(classes), args)
        about: dict[str, Any] = {"split": args.split, "trained_classes": len(trained) if digests else None}
        if args.ablate or args.told or args.compare_steps or args.unlabelled:
            compare: Callable[..., dict[str, Any]] = ablate
            if args.told:
                compare = partial(told_and_true, looked_at=loaded(JUDGED))
            if args.compare_steps:
                compare = partial(compare_steps, counts=args.compare_steps, restyle=args.restyled)
                about["restyled"] = args.restyled
            if args.unlabelled:
                added = {"per_class": args.unlabelled, "others": args.others or 0}
                compare, about = partial(compare_unlabelled, **added), about | added
            compared = compare(model, classes, config, lambda n: _show(n, args.episodes))
            print(json.dumps(asdict(config) | about | {"model_version": model.version} | compared))
            return 0
        result = evaluate(model, classes, config, lambda n: _show(n, args.episodes))
    except (ValueError, OSError) as error:
        raise told(error) from error
    if args.json:
        print(json.dumps(result.to_json(model, config) | about))
    else:
        print(
            f"{100 * result.accuracy:.2f} % ± {100 * result.ci95:.2f} "
            f"({args.episodes} episodes, {args.ways}-way {args.shots}-shot, {args.split})"
        )
    return 0


def _one_shot_runs(model: "MetaModel", args: argparse.Namespace) -> int:
    """Prints the error on Lake's one-shot runs. Raises ValueError if the model may know their characters."""
    from lamanas_core.data.folders import lake_split, load_dataset
    from lamanas_core.data.one_shot_runs import load_runs
    from lamanas_core.devices import choose_device
    from lamanas_core.measure.one_shot_runs import error_on_runs
    from lamanas_core.train.trained_classes import refuse_trained

    image = model.config.network.image
    runs = load_runs(args.data, image)
    # Any of these may be in a run, whose images are of some drawings of a character only.
    characters = load_dataset(args.data, image, split={"test": lake_split(args.data)["test"]})["test"]
    refuse_trained("--one-shot-runs is for models of `lamanas train --split lake`", model.card, characters)
    device = choose_device(args.device)
    found = error_on_runs(model, runs, steps=args.steps, device=device, on_run=lambda n: _show(n, len(runs)))
    if args.json:
        task = model.config.task_learner
        steps = task.steps if args.steps is None else args.steps
        conditions = {"runs": len(runs), "steps": steps, "loss": task.loss, "device": device}
        print(json.dumps(found | conditions | {"model_version": model.version, "trained_classes": 0}))
    else:
        print(f"error {100 * found['error']:.2f} % ± {100 * found['ci95']:.2f} ({len(runs)} one-shot runs)")
    return 0


def _say_trained(trained: list[str], count: int, args: argparse.Namespace) -> None:
    """Tell the user that of the ``count`` classes of ``args.split`` the model was trained on those called ``trained``.

    Raises CommandError if the split is one that is for new classes.
    """
    where = "" if args.split == "all" else f" of the {args.split} split"
    known = f"the model was trained on {len(trained)} of the {count} classes{where}, e.g. {trained[0]}"
    if args.split in ("val", "test"):
        raise CommandError(f"{args.data}: {known}: evaluate it on other classes, or with `--split all` nevertheless")
    print(f"{known}: the accuracy on new classes may be lower", file=sys.stderr)


def _show(done: int, episodes: int) -> None:
    if sys.stderr.isatty():
        print(f"episode {done}/{episodes}", end="\n" if done == episodes else "\r", file=sys.stderr, flush=True)
