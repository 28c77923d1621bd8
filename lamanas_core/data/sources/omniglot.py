"""Omniglot: reading its folders or zip files, and downloading it with torchvision."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lamanas_core.layout import is_litter
from lamanas_core.torchvision_modules import imported

OMNIGLOT_PARTS = ("images_background", "images_evaluation")


def is_omniglot(path: Path) -> bool:
    """Whether both parts of Omniglot are in ``path``, as folders or zip files."""
    return all((path / part).is_dir() or (path / f"{part}.zip").is_file() for part in OMNIGLOT_PARTS)


@dataclass(frozen=True)
class ImageFile:
    """An image file of a data set. ``where``: its path, as error messages state it."""

    where: str
    read: Callable[[], bytes]


def class_files(path: Path) -> Iterator[tuple[str, list[ImageFile]]]:
    """The classes in ``path``, ``<part>/<alphabet>/<character>``, each with its image files.

    Nothing if ``path`` is not Omniglot.
    """
    if not is_omniglot(path):
        return
    for part in OMNIGLOT_PARTS:
        read = _of_folder if (path / part).is_dir() else _of_zip
        found: dict[str, list[ImageFile]] = {}
        for name, file in read(path, part):
            if name.endswith(".png") and not is_litter(name):
                found.setdefault(name.rsplit("/", 1)[0], []).append(file)
        yield from found.items()


def _of_folder(path: Path, part: str) -> Iterator[tuple[str, ImageFile]]:
    for folder in sorted((path / part).glob("*/*")):
        for file in sorted(folder.glob("*.png")):
            yield file.relative_to(path).as_posix(), ImageFile(str(file), file.read_bytes)


def _of_zip(path: Path, part: str) -> Iterator[tuple[str, ImageFile]]:
    file = path / f"{part}.zip"
    archive = zipfile.ZipFile(file)
    for name in sorted(archive.namelist()):
        yield name, ImageFile(f"{file}: {name}", partial(archive.read, name))


def download(folder: Path) -> Path:
    """Download both parts of Omniglot to ``folder`` and return it. Raises torchvision's errors, such as URLError."""
    datasets = imported("torchvision.datasets")
    for background in (True, False):
        datasets.Omniglot(str(folder), background=background, download=True)
    for part in OMNIGLOT_PARTS:
        unpacked = folder / "omniglot-py" / part
        if unpacked.is_dir() and not (folder / part).exists():
            shutil.move(str(unpacked), folder / part)
    return folder
