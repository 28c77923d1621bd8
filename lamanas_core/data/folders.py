"""Loading data sets, Omniglot or any folder of class folders: images are preprocessed once and split by class."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lamanas_core.data.sources.omniglot import OnDisk, ReadBytes, class_files, is_omniglot
from lamanas_core.data.splits import DatasetError, Split, by_seed, vinyals
from lamanas_core.image_files import SUFFIXES, ImageError
from lamanas_core.image_spec import MAX_PIXELS, ImageSpec
from lamanas_core.images import load

# One support image and one query image.
MIN_IMAGES = 2


@dataclass(frozen=True)
class ImageClasses:
    """The classes of one split.

    ``images``: all images, uint8 (n, c, h, w). Class i is called ``names[i]``, has the images in the rows
    ``members[i]`` (int64), and belongs to the alphabet ``groups[i]`` (its parent folder; "" if there is none).
    """

    images: Tensor
    members: tuple[Tensor, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    # Images that were left out, each as "path: reason".
    damaged: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.members)

    def digests(self) -> tuple[str, ...]:
        """A digest of each class: the first 16 hexadecimal digits of a SHA-256.

        It depends on the class's images only, neither on their order nor on the names of class, folder or files, so
        that a class can be recognised in another folder.
        """
        found = []
        for rows in self.members:
            images = sorted(hashlib.sha256(image.tobytes()).digest() for image in self.images[rows].numpy())
            found.append(hashlib.sha256(b"".join(images)).hexdigest()[:16])
        return tuple(found)


def load_dataset(
    path: Path,
    spec: ImageSpec,
    *,
    seed: int = 0,
    split: dict[Split, list[str]] | None = None,
    skip_damaged: bool = False,
) -> dict[Split, ImageClasses]:
    """The three splits of the data set at ``path``, with images in the format ``spec``.

    ``split``: the class names of each split, for example those recorded by a run. Without it Omniglot (two folders or
    two zip files) gets the Vinyals split, and any other folder of class folders is split by class, 70 : 15 : 15, from
    ``seed``. ``skip_damaged``: damaged images are left out. Raises DatasetError.
    """
    files = _found(path)
    if split is None:
        split = vinyals() if is_omniglot(path) else by_seed(sorted(files), seed)
    missing = [name for names in split.values() for name in names if name not in files]
    if missing:
        raise DatasetError(f"{path}: {len(missing)} class folders of the split are missing, e.g. {missing[0]}")
    return {part: _read(names, files, spec, skip_damaged=skip_damaged) for part, names in split.items()}


def load_all(path: Path, spec: ImageSpec, *, skip_damaged: bool = False) -> ImageClasses:
    """All classes of the data set at ``path`` without a split, for data that was not used for training.

    Raises DatasetError.
    """
    files = _found(path)
    return _read(sorted(files), files, spec, skip_damaged=skip_damaged)


def _found(path: Path) -> dict[str, list[ReadBytes]]:
    files = dict(class_files(path)) or dict(_class_folders(path))
    if not files:
        raise DatasetError(f"{path} contains no class folders with images")
    return files


def _class_folders(path: Path) -> Iterator[tuple[str, list[ReadBytes]]]:
    if not path.is_dir():
        raise DatasetError(f"{path} is not a folder")
    for folder in sorted(p for p in path.rglob("*") if p.is_dir()):
        files = sorted(f for f in folder.iterdir() if f.is_file() and f.suffix.lower() in SUFFIXES)
        if files:
            if len(files) < MIN_IMAGES:
                raise DatasetError(f"{folder}: {len(files)} image; a class needs at least {MIN_IMAGES}")
            yield str(folder.relative_to(path)), [OnDisk(f) for f in files]


def _read(names: list[str], files: dict[str, list[ReadBytes]], spec: ImageSpec, *, skip_damaged: bool) -> ImageClasses:
    arrays: list[np.ndarray] = []
    members: list[Tensor] = []
    damaged: list[str] = []
    for name in names:
        start = len(arrays)
        for read in files[name]:
            try:
                arrays.append(load(read(), spec, max_pixels=MAX_PIXELS))
            except ImageError as error:
                if not skip_damaged:
                    raise DatasetError(f"{read}: {error} (--skip-damaged trains without such images)") from error
                damaged.append(f"{read}: {error}")
        if len(arrays) - start < min(MIN_IMAGES, len(files[name])):
            raise DatasetError(f"{name}: without the damaged images, fewer than {MIN_IMAGES} are left: {damaged[-1]}")
        members.append(torch.arange(start, len(arrays)))
    groups = tuple(name.rsplit("/", 1)[0] if "/" in name else "" for name in names)
    return ImageClasses(torch.from_numpy(np.stack(arrays)), tuple(members), tuple(names), groups, tuple(damaged))
