"""``lamanas reproduce``: reproduce the paper's table."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli import numbers
from cli.errors import CommandError, told

DESCRIPTION = """Train and measure every row of the paper's Table 1, or its variants, and print the table. If run again,
it resumes.

example: lamanas reproduce table1 --budget small --data ../shared/omniglot --run runs/table1

Give variants the same --run: they start from Table 1's warm-up, and some take its trained models."""


def add_parser(commands: Any) -> None:
    """Options of ``lamanas reproduce``."""
    parser = commands.add_parser(
        "reproduce",
        help="reproduce the paper's table",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("table1", "variants"))
    parser.add_argument("--budget", choices=("small", "paper"), default="small")
    parser.add_argument("--data", type=Path, default=os.environ.get("LAMANAS_OMNIGLOT"), help="the data set")
    parser.add_argument("--run", type=Path, help="folder for checkpoints")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs/reproduction"),
        help="folder of the finished runs, with a folder for each budget and for its variants",
    )
    parser.add_argument("--seed", type=numbers.seed, help="run only this seed: lets processes share the work")
    parser.add_argument("--table", action="store_true", help="print only the table of the finished runs")


def run(args: argparse.Namespace) -> int:
    """Prints the table; returns 0."""
    import torch

    from lamanas_core.measure.table1.rows import BUDGETS, rows, variants
    from lamanas_core.measure.table1.runs import reproduce
    from lamanas_core.measure.table1.tables import table, variants_table

    table1 = args.out / args.budget  # one table must not mix budgets
    of_variants = args.what == "variants"
    if of_variants and not BUDGETS[args.budget].warm_up_epochs:
        raise CommandError(f"variants start from a warm-up, which budget {args.budget} does not have")
    out = args.out / f"{args.budget}-variants" if of_variants else table1
    if not args.table:
        if args.data is None or args.run is None:
            raise CommandError("--data and --run are needed (or --table)")
        torch.set_num_threads(1)
        budget = BUDGETS[args.budget]
        seeds = _seeds(args.seed, args.budget, budget.seeds)
        chosen = variants() if of_variants else rows()
        command = shlex.join(["lamanas", *sys.argv[1:]])
        try:
            for path in reproduce(chosen, budget, seeds, Path(args.data), args.run, out, command, _tell):
                _tell(f"wrote {path}")
        except (ValueError, OSError) as error:
            raise told(error) from error
    print(variants_table(out, table1) if of_variants else table(out))
    return 0


def _seeds(asked: int | None, budget: str, count: int) -> Sequence[int]:
    """The seeds of the budget, or only the given one. Raises CommandError."""
    if asked is None:
        return range(count)
    if asked >= count:
        raise CommandError(f"--seed is {asked}; budget {budget} has the seeds 0 to {count - 1}")
    return [asked]


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
