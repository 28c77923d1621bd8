"""``lamanas train start``, ``watch`` and ``cancel``: meta-training on a service."""

import argparse
import sys
from typing import Any

from cli import numbers, remote, show
from cli.errors import CommandError
from lamanas_client import Client, Training
from lamanas_core.config import PRESETS

OPTIONS = ("preset", "meta", "loss", "residual", "proxy", "meta_epochs", "ways", "shots", "seed")
START = """The data set is a folder in the service's data directory, under datasets/.

example: lamanas train start symbols --meta-epochs 20 --watch"""
WATCH = "example: lamanas train watch"
CANCEL = "example: lamanas train cancel 01k8d9w3v4q2x6y7z8a9b0c1d2"


def add_options(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Options of a run on this machine and on a service."""
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default=default,
    )
    parser.add_argument("--meta", choices=("maml", "reptile"), default=default)
    parser.add_argument("--loss", choices=("cross_entropy", "fnn", "lstm"), default=default)
    parser.add_argument("--residual", action=argparse.BooleanOptionalAction, default=default)
    parser.add_argument("--proxy", choices=("mse", "inner_product", "cosine"), default=default)
    for name in ("meta-epochs", "ways", "shots"):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=numbers.seed, default=default)


def add_actions(actions: Any) -> None:
    start = actions.add_parser(
        "start",
        help="start a run on a service",
        description=START,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    start.add_argument("dataset", metavar="DATA_SET")
    start.add_argument("--watch", action="store_true", help="follow the run to its end")
    add_options(start, argparse.SUPPRESS)  # options before the action are kept
    watch = actions.add_parser("watch", help="follow a run to its end", description=WATCH)
    watch.add_argument("id", nargs="?", metavar="RUN", help="default: the newest")
    cancel = actions.add_parser("cancel", help="stop a run and keep its last checkpoint", description=CANCEL)
    cancel.add_argument("id", metavar="RUN")
    for parser in (start, watch, cancel):
        show.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Returns 1 if the run was watched and ended without a model."""
    with remote.service() as client:
        if args.action == "start":
            options = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
            training = client.start_training(args.dataset, **options)
        elif args.action == "cancel":
            training = client.cancel_training(args.id)
        else:
            training = client.get_training(args.id or _newest(client))
        watched = args.action == "watch" or (args.action == "start" and args.watch)
        if watched:
            training = _watch(client, training.id)
    if args.json:
        show.print_json(training)
    else:
        _print(training)
    return 1 if watched and training.state != "finished" else 0


def words(loss: float | None, accuracy: float | None, eta_seconds: float | None) -> str:
    """The figures beside the progress bar of a run."""
    left = "" if eta_seconds is None else f"{eta_seconds / 60:6.1f} min left"
    known = "   -  " if accuracy is None else f"{accuracy:.4f}"
    return f"loss {'-' if loss is None else format(loss, '.4f')}  val {known}  {left}"


def _newest(client: Client) -> str:
    newest = client.list_trainings(1)
    if not newest:
        raise CommandError("there is no run yet: `lamanas train start DATA_SET` starts one")
    return newest[0].id


def _watch(client: Client, id: str) -> Training:
    try:
        for news in client.watch_training(id):
            show.print_bar(news.epoch, news.epochs, words(news.loss, news.validation_accuracy, news.eta_seconds))
    except KeyboardInterrupt:
        print(f"\nthe run continues: lamanas train watch {id}", file=sys.stderr)
        raise
    return client.get_training(id)


def _print(training: Training) -> None:
    fields: list[tuple[str, object]] = [
        ("run", training.id),
        ("state", "being cancelled" if training.cancelling else training.state),
        ("data set", training.dataset),
        ("epoch", f"{training.epoch} of {training.epochs}" if training.epochs else "-"),
        ("validation", show.percent(training.validation_accuracy)),
        ("model", training.model_version or "-"),
    ]
    fields += [("warning", words) for words in training.warnings]
    fields += [("error", training.error)] if training.error else []
    show.print_fields(fields)
    if training.model_version:
        print(f"\nuse it:  lamanas models activate {training.model_version}")
