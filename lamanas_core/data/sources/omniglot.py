"""Omniglot: reading its folders or zip files, and downloading it with torchvision."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.library import Library

ReadBytes = Callable[[], bytes]
OMNIGLOT_PARTS = ("images_background", "images_evaluation")
_declared: list[Library] = []


def is_omniglot(path: Path) -> bool:
    """Whether both parts of Omniglot are in ``path``, as folders or zip files."""
    return all((path / part).is_dir() or (path / f"{part}.zip").is_file() for part in OMNIGLOT_PARTS)


def class_files(path: Path) -> Iterator[tuple[str, list[ReadBytes]]]:
    """The classes in ``path``, ``<part>/<alphabet>/<character>``, each with functions that read its image files.

    Nothing if ``path`` is not Omniglot.
    """
    if not is_omniglot(path):
        return
    for part in OMNIGLOT_PARTS:
        if (path / part).is_dir():
            for folder in sorted((path / part).glob("*/*")):
                yield f"{part}/{folder.parent.name}/{folder.name}", [OnDisk(f) for f in sorted(folder.glob("*.png"))]
            continue
        archive = zipfile.ZipFile(path / f"{part}.zip")
        found: dict[str, list[ReadBytes]] = {}
        for name in sorted(archive.namelist()):
            if name.endswith(".png"):
                found.setdefault(name.rsplit("/", 1)[0], []).append(_Member(archive, name))
        yield from found.items()


@dataclass(frozen=True)
class OnDisk:
    """Reads a file; as text, its path."""

    path: Path

    def __call__(self) -> bytes:
        return self.path.read_bytes()

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class _Member:
    archive: zipfile.ZipFile
    name: str

    def __call__(self) -> bytes:
        return self.archive.read(self.name)

    def __str__(self) -> str:
        return f"{self.archive.filename}/{self.name}"


def import_torchvision_datasets() -> object:
    """Import ``torchvision.datasets`` and return it.

    PyPI's torchvision is built against torch with CUDA. With a CPU-only torch its import fails, because it registers
    fake kernels for two operators that are not declared; declaring them makes the import work. Raises ImportError.
    """
    try:
        from torchvision import datasets
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
        _declared.append(library)
        from torchvision import datasets
    return datasets


def download(folder: Path) -> Path:
    """Download both parts of Omniglot to ``folder`` and return it. Raises torchvision's errors, such as URLError."""
    datasets = import_torchvision_datasets()
    for background in (True, False):
        datasets.Omniglot(str(folder), background=background, download=True)  # type: ignore[attr-defined]
    for part in OMNIGLOT_PARTS:
        unpacked = folder / "omniglot-py" / part
        if unpacked.is_dir() and not (folder / part).exists():
            shutil.move(str(unpacked), folder / part)
    return folder
