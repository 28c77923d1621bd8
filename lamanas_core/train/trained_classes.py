"""The classes that a meta-model was trained on: recognised by digest in any folder, so that they never test it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lamanas_core.data.folders import ImageClasses, load_all, usual_split
from lamanas_core.data.splits import Split
from lamanas_core.image_spec import ImageSpec
from lamanas_core.train.run_folder import read_split


def trained_digests(card: Mapping[str, Any]) -> frozenset[str]:
    """The digests of the classes that the model with this card was trained on.

    Empty for the cards of models that were trained before digests were recorded, among them the shipped model's.
    """
    return frozenset(card.get("data", {}).get("train", {}).get("digests", ()))


def without_digests(card: Mapping[str, Any]) -> dict[str, Any]:
    """``card`` without the digests."""
    data = dict(card.get("data", {}))
    if "train" in data:
        data["train"] = {name: value for name, value in data["train"].items() if name != "digests"}
    return dict(card) | ({"data": data} if data else {})


def recognised(classes: ImageClasses, digests: Collection[str]) -> list[str]:
    """The names of those ``classes`` whose digests are in ``digests``."""
    if not digests:  # as for the shipped model: no image has to be read
        return []
    return [name for name, digest in zip(classes.names, classes.digests(), strict=True) if digest in digests]


def refuse_trained(what: str, card: Mapping[str, Any], *held_out: ImageClasses) -> None:
    """Raises ValueError, which begins with ``what``, if the model with this ``card`` was trained on classes that are
    ``held_out``, or if the card cannot tell that it was not: without digests, or if the training started from another
    model, whose own card may not have had any. A training with ``--split lake`` has checked that.
    """
    digests = trained_digests(card)
    complete = "started_from" not in card or card["training"].get("split") == "lake"
    if not digests or not complete:
        raise ValueError(f"{what}: the model's card does not record all classes that it was trained on")
    known = [name for classes in held_out for name in recognised(classes, digests)]
    if known:
        raise ValueError(f"{what}: the model was trained on {len(known)} of the classes held out, e.g. {known[0]}")


def split_of_run(folder: Path, data: Path, spec: ImageSpec, digests: Collection[str]) -> dict[Split, list[str]] | None:
    """The split recorded by the run in ``folder`` if ``data`` is its data set, otherwise None.

    It is if its folder has the recorded name, or if it has all recorded classes and the training classes are in
    ``digests``, those of the run's model: the same data set in a renamed folder. Raises DatasetError.
    """
    split = read_split(folder)
    if split is None or read_split(folder, data=data) is not None:
        return split
    found = load_all(data, spec, "train")
    complete = _classes(split) <= set(found.names)
    return split if complete and set(split["train"]) <= set(recognised(found, digests)) else None


def split_after(
    start: Path | None,
    digests: Collection[str],
    data: Path,
    spec: ImageSpec,
    seed: int,
    *,
    skip_damaged: bool = False,
) -> dict[Split, list[str]] | None:
    """The split for a training on ``data`` that starts from a meta-model; None if its classes are not known.

    ``start``: the model's folder, None for the shipped model; ``digests``: of the classes that it was trained on. If
    ``data`` is the data set of the run in ``start``, the split is that run's. Otherwise it is the usual one, unless
    the model was trained on classes of the other two splits: then all those are training classes. Raises DatasetError.
    """
    recorded = None if start is None else read_split(start)
    if recorded is None and not digests:
        return None
    found = load_all(data, spec, "train", skip_damaged=skip_damaged)
    names, trained = sorted(found.names), set(recognised(found, digests))
    split = usual_split(data, seed)
    if start is not None and recorded is not None:
        named = read_split(start, data=data) is not None
        if _classes(recorded) == set(names) and (named or set(recorded["train"]) <= trained):
            split = recorded
        elif named:  # the same data set with classes added or removed
            trained |= set(recorded["train"])
    held_out = {*split["val"], *split["test"]}
    return usual_split(data, seed, trained=trained) if held_out & trained else split


def _classes(split: Mapping[Split, list[str]]) -> set[str]:
    return {name for names in split.values() for name in names}
