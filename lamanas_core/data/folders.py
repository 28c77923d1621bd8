"""Loading data sets, Omniglot or any folder of class folders: images are preprocessed once and split by class."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lamanas_core import images, layout
from lamanas_core.data.sources.omniglot import ImageFile, class_files, is_omniglot
from lamanas_core.data.splits import DamagedImageError, DatasetError, Split, by_folders, by_seed, lake, vinyals
from lamanas_core.image_files import ImageError
from lamanas_core.image_spec import MAX_PIXELS, ImageSpec
from lamanas_core.layout import Layout, Use

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

    ``split``: the class names of each split, for example those recorded by a run; without it, ``usual_split``.
    ``skip_damaged``: damaged images are left out. Raises DatasetError.
    """
    found = _found(path, "train")
    files = found.files
    if split is None:
        split = _usual_split(path, found, seed)
    missing = [name for names in split.values() for name in names if name not in files]
    if missing:
        raise DatasetError(f"{path}: {len(missing)} class folders of the split are missing, e.g. {missing[0]}")
    return {part: _read(names, files, spec, skip_damaged=skip_damaged) for part, names in split.items()}


def usual_split(path: Path, seed: int, *, trained: Collection[str] = ()) -> dict[Split, list[str]]:
    """The class names of each split, for a training on ``path``.

    Omniglot (two folders or two zip files) gets the Vinyals split. Folders that are named after splits are used as
    such. Any other folder of class folders is split by class, 70 : 15 : 15, from ``seed``. ``trained``: classes that
    an earlier training has used, which are training classes again. Raises DatasetError.
    """
    return _usual_split(path, _found(path, "train"), seed, trained)


def lake_split(path: Path) -> dict[Split, list[str]]:
    """The class names of each part of Lake's split of the Omniglot in ``path``, see ``splits.lake``. Raises
    DatasetError.
    """
    if not is_omniglot(path):
        raise DatasetError(f"{path} is not Omniglot, which the split `lake` is of")
    return lake(_found(path, "train").files)


def load_all(path: Path, spec: ImageSpec, use: Use = "adapt", *, skip_damaged: bool = False) -> ImageClasses:
    """All classes of the data set at ``path`` without a split, for data that was not used for training.

    ``use``: "train" keeps the classes of the folder's own splits apart, as ``load_dataset`` names them. Raises
    DatasetError.
    """
    files = _found(path, use).files
    return _read(sorted(files), files, spec, skip_damaged=skip_damaged)


def notes(path: Path, use: Use = "train") -> tuple[str, ...]:
    """What is to be told about how the data set at ``path`` is read, a sentence each. Raises DatasetError."""
    if is_omniglot(path):
        return layout.read(f"{name}/1.png" for name, _ in class_files(path)).notes(use)
    found = _layout(path)
    parts = {image.split for image in found.images}
    missing = [part for part in ("val", "test") if found.splits and use == "train" and part not in parts]
    kept = (
        f"there are no class folders for {part}: some classes of the training images are kept for it"
        for part in missing
    )
    return (*found.notes(use), *kept)


@dataclass(frozen=True)
class _Found:
    """The image files of each class, and whether the classes are in splits, as ``<split>/<label>``."""

    files: dict[str, list[ImageFile]]
    split: bool


def _found(path: Path, use: Use) -> _Found:
    files = dict(class_files(path))
    split = False
    if not files:
        read = _layout(path)
        split = bool(read.splits) and use == "train"
        for image in read.images:
            file = path / image.path
            name = f"{image.split}/{image.label}" if split else image.label
            files.setdefault(name, []).append(ImageFile(str(file), file.read_bytes))
    if not files:
        raise DatasetError(f"{path} contains no class folders with images")
    for _, few in sorted(files.items()):
        if len(few) < MIN_IMAGES:
            raise DatasetError(f"{Path(few[0].where).parent}: 1 image; a class needs at least {MIN_IMAGES}")
    return _Found(files, split)


def _usual_split(path: Path, found: _Found, seed: int, trained: Collection[str] = ()) -> dict[Split, list[str]]:
    if is_omniglot(path):
        split = vinyals()
        if not {*split["val"], *split["test"]} & set(trained):
            return split
    choose = by_folders if found.split else by_seed
    return choose(sorted(found.files), seed, trained=trained)


def _layout(path: Path) -> Layout:
    if not path.is_dir():
        raise DatasetError(f"{path} is not a folder")
    try:
        return layout.read_folder(path)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error


def _read(names: list[str], files: dict[str, list[ImageFile]], spec: ImageSpec, *, skip_damaged: bool) -> ImageClasses:
    arrays: list[np.ndarray] = []
    members: list[Tensor] = []
    damaged: list[str] = []
    for name in names:
        start = len(arrays)
        for file in files[name]:
            try:
                arrays.append(images.load(file.read(), spec, max_pixels=MAX_PIXELS))
            except ImageError as error:
                if not skip_damaged:
                    raise DamagedImageError(f"{file.where}: {error}") from error
                damaged.append(f"{file.where}: {error}")
        if len(arrays) - start < min(MIN_IMAGES, len(files[name])):
            raise DatasetError(f"{name}: without the damaged images, fewer than {MIN_IMAGES} are left: {damaged[-1]}")
        members.append(torch.arange(start, len(arrays)))
    groups = tuple(name.rsplit("/", 1)[0] if "/" in name else "" for name in names)
    return ImageClasses(torch.from_numpy(np.stack(arrays)), tuple(members), tuple(names), groups, tuple(damaged))
