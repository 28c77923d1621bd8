"""What people hold (paths, bytes, folders, zips), turned into what a request carries."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lamanas_core import layout

Image = bytes | str | os.PathLike[str]
Support = Mapping[str, Iterable[Image]] | str | os.PathLike[str]
# (field, (file name, content)), as multipart has them.
Part = tuple[str, tuple[str, bytes]]


@dataclass(frozen=True)
class Sent:
    """The files of a support set, those with a label first, their labels unless they are one zip, and how a folder was
    read, in words."""

    files: list[Part]
    labels: list[str]
    notes: tuple[str, ...] = ()


def support_parts(support: Support, unlabelled: Iterable[Image]) -> Sent:
    """What is sent of a support set and of further images without a label. Raises ValueError, OSError."""
    sent = _labelled(support)
    return replace(sent, files=[*sent.files, *unlabelled_parts(unlabelled)])


def unlabelled_parts(images: Iterable[Image]) -> list[Part]:
    """What is sent of images without a label. Raises ValueError, OSError."""
    return [("unlabelled", file(image)) for image in several("unlabelled", images)]


def _labelled(support: Support) -> Sent:
    if isinstance(support, Mapping):
        pairs = [(label, image) for label, images in support.items() for image in several(f"class {label!r}", images)]
        if not pairs:
            raise ValueError("no images: give each class at least one")
        return Sent([("images", file(image, label)) for label, image in pairs], [label for label, _ in pairs])
    if (path := Path(support)).is_dir():
        return _folder(path)
    return Sent([("archive", file(path))], [])


def file(image: Image, label: str | None = None) -> tuple[str, bytes]:
    """Name and content; the name is what the service calls it by where something is wrong with it."""
    name, content = ("image", image) if isinstance(image, bytes) else (Path(image).name, Path(image).read_bytes())
    return (name if label is None else f"{label}/{name}"), content


def several(what: str, images: Iterable[Image]) -> Iterable[Image]:
    """The images, unless it is a single one, whose letters or bytes would be taken for images. Raises ValueError."""
    if isinstance(images, bytes | str | os.PathLike):
        raise ValueError(f"{what}: a list of images is needed, not one alone")
    return images


def _folder(folder: Path) -> Sent:
    """The images of the class folders and those without a label, in the order of their names; each is called by its
    path."""
    found = layout.read_folder(folder)
    if not found.images:
        words = "; ".join(["put the images of each class into a folder named after it", *found.notes("adapt")])
        raise ValueError(f"{folder} has no folders of images: {words}")
    paths = [("images", image.path) for image in found.images] + [("unlabelled", path) for path in found.unlabelled]
    files = [(field, (path, (folder / path).read_bytes())) for field, path in paths]
    return Sent(files, [image.label for image in found.images], found.notes("adapt"))
