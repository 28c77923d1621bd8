"""Splits of the classes into training, validation and test classes."""

import random
from collections.abc import Collection, Iterable
from importlib import resources

from lamanas_core.layout import SPLITS as SPLITS
from lamanas_core.layout import Split as Split

# Every sixth of the 30 alphabets in ``images_background``, from the fourth: 172 characters, as many as in the Vinyals
# split, and at least 20 of each alphabet.
LAKE_VALIDATION = ("Armenian", "Burmese_(Myanmar)", "Gujarati", "Latin", "Syriac_(Estrangelo)")


class DatasetError(ValueError):
    """The folder is not a usable data set; the message gives the reason."""


class DamagedImageError(DatasetError):
    """An image of the data set cannot be read; the message names it by its path."""


def vinyals() -> dict[Split, list[str]]:
    """The Vinyals split of Omniglot: class names as in ``omniglot.class_files``."""
    folder = resources.files("lamanas_core.data") / "vinyals"
    return {part: (folder / f"{part}.txt").read_text("utf-8").split("\n")[:-1] for part in SPLITS}


def lake(names: Iterable[str]) -> dict[Split, list[str]]:
    """Lake's split of Omniglot, for the one-shot runs: the characters of ``images_evaluation`` are for testing, and
    those of ``images_background`` for training, except for the alphabets ``LAKE_VALIDATION``.

    ``names``: of all classes, as in ``omniglot.class_files``.
    """
    parts: dict[Split, list[str]] = {"train": [], "val": [], "test": []}
    for name in sorted(names):
        part, alphabet = name.split("/")[:2]
        if part == "images_evaluation":
            parts["test"].append(name)
        else:
            parts["val" if alphabet in LAKE_VALIDATION else "train"].append(name)
    return parts


def by_seed(names: list[str], seed: int, *, trained: Collection[str] = ()) -> dict[Split, list[str]]:
    """A random split of the classes, 70 : 15 : 15, at least 2 each.

    ``trained``: classes that an earlier training has used; they are training classes again. If there are too few
    others, the validation and test splits are smaller, at least 2 classes each. Raises DatasetError if there are fewer
    than 6 classes, or fewer than 4 that are not in ``trained``.
    """
    if len(names) < 6:
        raise DatasetError(f"{len(names)} classes; training needs at least 6 (2 each to train, validate and test on)")
    shuffled = names.copy()
    random.Random(seed).shuffle(shuffled)
    free = [name for name in shuffled if name not in trained]
    if len(free) < 4:
        raise DatasetError(
            f"the model to start from was trained on {len(names) - len(free)} of the {len(names)} classes; "
            "at least 4 others are needed (2 each to validate and test on)"
        )
    part = min(max(2, round(0.15 * len(names))), len(free) // 2)
    held_out = free[: 2 * part]
    return {
        "train": sorted(set(names) - set(held_out)),
        "val": sorted(held_out[:part]),
        "test": sorted(held_out[part:]),
    }


def by_folders(names: list[str], seed: int, *, trained: Collection[str] = ()) -> dict[Split, list[str]]:
    """The split of a folder that is split already; ``names``: ``<split>/<class>``.

    If there is no validation or test split, 15 % of the training classes are kept for it, chosen from ``seed``, at
    least 2. ``trained``: classes that an earlier training has used; they are training classes again. Raises
    DatasetError if there is no training split, or a split has fewer than 2 classes.
    """
    own = {part: sorted(name for name in names if name.startswith(f"{part}/")) for part in SPLITS}
    if not own["train"]:
        raise DatasetError(
            f"there are no class folders for train beside {' and '.join(part for part in SPLITS if own[part])}"
        )
    missing = [part for part in SPLITS if not own[part]]
    count, needed = len(own["train"]), 2 + 2 * len(missing)
    if count < needed:
        raise DatasetError(f"{count} class{'es' * (count > 1)} in the train split; at least {needed} are needed")
    free = [name for name in own["train"] if name not in trained]
    random.Random(seed).shuffle(free)
    for part in missing:
        size = max(2, min(round(0.15 * count), (count - 2) // len(missing)))
        own[part], free = sorted(free[:size]), free[size:]
    held_out: dict[Split, list[str]] = {
        part: [name for name in own[part] if name not in trained] for part in SPLITS if part != "train"
    }
    for part, left in held_out.items():
        if len(left) < 2:
            raise DatasetError(f"{len(left)} new classes in the {part} split; at least 2 are needed")
    known = {*own["train"], *(name for name in names if name in trained)}
    return {"train": sorted(known - {*held_out["val"], *held_out["test"]}), **held_out}
