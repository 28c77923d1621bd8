"""Which classes are trained on, which chosen by, which reported on."""

import random
from importlib import resources
from typing import Literal

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")


class DatasetError(ValueError):
    """The folder is not a data set we can learn from; the message says why."""


def vinyals() -> dict[Split, list[str]]:
    folder = resources.files("lamanas_core.data") / "vinyals"
    return {part: (folder / f"{part}.txt").read_text("utf-8").split("\n")[:-1] for part in SPLITS}


def by_seed(names: list[str], seed: int) -> dict[Split, list[str]]:
    if len(names) < 6:
        raise DatasetError(f"{len(names)} classes; training needs at least 6 (2 each to train, choose and test on)")
    shuffled = names.copy()
    random.Random(seed).shuffle(shuffled)
    held = max(2, round(0.15 * len(names)))
    return {
        "train": sorted(shuffled[2 * held :]),
        "val": sorted(shuffled[:held]),
        "test": sorted(shuffled[held : 2 * held]),
    }
