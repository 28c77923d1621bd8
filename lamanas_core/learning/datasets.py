"""Images of a data set, preprocessed once and split by class: Omniglot's layout or any folder of class folders."""

import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lamanas_core import images
from lamanas_core.image_spec import ImageSpec

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
OMNIGLOT_PARTS = ("images_background", "images_evaluation")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif"}
MAX_PIXELS = 16_000_000
# A class must fill one support image and one query image.
MIN_IMAGES = 2

ReadBytes = Callable[[], bytes]


class DatasetError(ValueError):
    """The folder is not a data set we can learn from; the message says why."""


@dataclass(frozen=True)
class ImageClasses:
    """The classes of one split. ``images``: uint8 (n, c, h, w); class i has the rows ``members[i]`` (int64).

    ``groups[i]`` is the alphabet (the folder above the class folder; "" where there is none).
    """

    images: Tensor
    members: tuple[Tensor, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.members)


def load_dataset(
    path: Path, spec: ImageSpec, *, seed: int = 0, split: dict[Split, list[str]] | None = None
) -> dict[Split, ImageClasses]:
    """The three splits of the data set at ``path``.

    Omniglot (its two folders, or its two zips) gets the Vinyals split; any other folder of class folders is split
    by class, 70 : 15 : 15, by ``seed``, or as ``split`` says, which a run has written down. Raises DatasetError.
    """
    files = _found(path)
    if split is None:
        split = _vinyals() if _is_omniglot(path) else _by_seed(sorted(files), seed)
    missing = [name for names in split.values() for name in names if name not in files]
    if missing:
        raise DatasetError(f"{path}: {len(missing)} class folders of the split are missing, {missing[0]} for one")
    return {part: _read(names, files, spec) for part, names in split.items()}


def load_all(path: Path, spec: ImageSpec) -> ImageClasses:
    """All classes of the data set at ``path``, not split: for data that no model here was trained on.

    Raises DatasetError.
    """
    files = _found(path)
    return _read(sorted(files), files, spec)


def _found(path: Path) -> dict[str, list[ReadBytes]]:
    files = dict(_omniglot(path)) or dict(_class_folders(path))
    if not files:
        raise DatasetError(f"{path}: no class folders with images in it")
    return files


def _is_omniglot(path: Path) -> bool:
    return all((path / part).is_dir() or (path / f"{part}.zip").is_file() for part in OMNIGLOT_PARTS)


def _omniglot(path: Path) -> Iterator[tuple[str, list[ReadBytes]]]:
    if not _is_omniglot(path):
        return
    for part in OMNIGLOT_PARTS:
        if (path / part).is_dir():
            for folder in sorted((path / part).glob("*/*")):
                yield f"{part}/{folder.parent.name}/{folder.name}", [f.read_bytes for f in sorted(folder.glob("*.png"))]
            continue
        archive = zipfile.ZipFile(path / f"{part}.zip")
        found: dict[str, list[ReadBytes]] = {}
        for name in sorted(archive.namelist()):
            if name.endswith(".png"):
                found.setdefault(name.rsplit("/", 1)[0], []).append(_Member(archive, name))
        yield from found.items()


@dataclass(frozen=True)
class _Member:
    archive: zipfile.ZipFile
    name: str

    def __call__(self) -> bytes:
        return self.archive.read(self.name)


def _class_folders(path: Path) -> Iterator[tuple[str, list[ReadBytes]]]:
    if not path.is_dir():
        raise DatasetError(f"{path} is not a folder")
    for folder in sorted(p for p in path.rglob("*") if p.is_dir()):
        files = sorted(f for f in folder.iterdir() if f.is_file() and f.suffix.lower() in SUFFIXES)
        if files:
            if len(files) < MIN_IMAGES:
                raise DatasetError(f"{folder}: {len(files)} image; a class needs at least {MIN_IMAGES}")
            yield str(folder.relative_to(path)), [f.read_bytes for f in files]


def _vinyals() -> dict[Split, list[str]]:
    folder = resources.files("lamanas_core.learning") / "splits"
    return {part: (folder / f"{part}.txt").read_text("utf-8").split("\n")[:-1] for part in SPLITS}


def _by_seed(names: list[str], seed: int) -> dict[Split, list[str]]:
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


def _read(names: list[str], files: dict[str, list[ReadBytes]], spec: ImageSpec) -> ImageClasses:
    arrays: list[np.ndarray] = []
    members: list[Tensor] = []
    for name in names:
        start = len(arrays)
        for read in files[name]:
            try:
                arrays.append(images.load(read(), spec, max_pixels=MAX_PIXELS))
            except images.ImageError as error:
                raise DatasetError(f"{name}: image {len(arrays) - start + 1}: {error}") from error
        members.append(torch.arange(start, len(arrays)))
    groups = tuple(name.rsplit("/", 1)[0] if "/" in name else "" for name in names)
    return ImageClasses(torch.from_numpy(np.stack(arrays)), tuple(members), tuple(names), groups)
