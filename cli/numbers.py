"""Numbers on a command line, with their ranges."""

import argparse
from collections.abc import Callable

MAX_SEED = 2**32 - 1


def between(least: int, most: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers from ``least`` to ``most``."""

    def number(text: str) -> int:
        found = int(text)
        if not least <= found <= most:
            raise argparse.ArgumentTypeError(f"{found} is not between {least} and {most}")
        return found

    return number


count = between(1, 1_000_000)
threads = between(1, 1024)
seed = between(0, MAX_SEED)
