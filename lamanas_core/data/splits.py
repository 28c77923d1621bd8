"""Splits of the classes into training, validation and test classes."""

import random
from importlib import resources
from typing import Literal

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")


class DatasetError(ValueError):
    """The folder is not a usable data set; the message gives the reason."""


def vinyals() -> dict[Split, list[str]]:
    """The Vinyals split of Omniglot: class names as in ``omniglot.class_files``."""
    folder = resources.files("lamanas_core.data") / "vinyals"
    return {part: (folder / f"{part}.txt").read_text("utf-8").split("\n")[:-1] for part in SPLITS}


def by_seed(names: list[str], seed: int) -> dict[Split, list[str]]:
    """A random split of the classes, 70 : 15 : 15, at least 2 each. Raises DatasetError if there are fewer than 6."""
    if len(names) < 6:
        raise DatasetError(f"{len(names)} classes; training needs at least 6 (2 each to train, validate and test on)")
    shuffled = names.copy()
    random.Random(seed).shuffle(shuffled)
    part = max(2, round(0.15 * len(names)))
    return {
        "train": sorted(shuffled[2 * part :]),
        "val": sorted(shuffled[:part]),
        "test": sorted(shuffled[part : 2 * part]),
    }
