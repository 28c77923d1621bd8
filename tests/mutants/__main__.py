"""``make mutants``: puts a fault into each of a random sample of places, and runs the tests that belong to it.

Ends with ``mutants: tried N, killed M``; the exit status is 0 if the whole sample was tried. What is known is kept in
``runs/mutants``: the same command goes on after an interruption, and tries again only what a change has made unknown.
"""

import argparse
import shutil
import signal
import sys
import time

from tests.mutants.results import Results, summary
from tests.mutants.run import BaselineError, Run
from tests.mutants.sample import sample
from tests.mutants.tests_of import AREAS, ROOT

FOLDER = ROOT / "runs" / "mutants"
PLACES, SEED, MINUTES, WORKERS = 200, 13, 90.0, 2


def main() -> int:
    asked = _parser().parse_args()
    until = time.monotonic() + 60 * asked.minutes
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if asked.fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    drawn = sample(ROOT, AREAS, asked.places, asked.seed)
    mutants = [mutant for mutant in drawn if asked.only in (None, mutant.path)]
    run = Run(ROOT, Results(FOLDER), until)
    try:
        if not asked.list:
            run.go(mutants, asked.workers)
    except BaselineError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from here")
    tried = [(mutant.area, result) for mutant in mutants if (result := run.result(mutant)) is not None]
    for _, result in tried:
        if not result.killed:
            print(f"survived: {result.path}:{result.line}\n{result.diff}\n")
    left = len(mutants) - len(tried)
    if left:
        ended = "" if asked.list else f" within {asked.minutes:g} minutes: the same command goes on from here"
        print(f"not tried: {left} of {len(mutants)}{ended}")
    print("\n".join(summary(tried)))
    return 1 if left else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="How many faults do the tests find?")
    parser.add_argument("--list", action="store_true", help="run nothing; show the known survivors and their diffs")
    parser.add_argument("--only", metavar="FILE", help="of the same sample, only the faults in this source file")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed is another sample (default: %(default)s)")
    parser.add_argument("--places", type=int, default=PLACES, help="size of the sample (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="begin nothing later (default: %(default)g)")
    parser.add_argument("--workers", type=int, default=WORKERS, help="faults tried at once (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="forget all results first")
    return parser


if __name__ == "__main__":
    sys.exit(main())
