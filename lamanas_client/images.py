"""What people hold (paths, bytes, folders, zips), turned into what a request carries."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

Image = bytes | str | os.PathLike[str]
Support = Mapping[str, Iterable[Image]] | str | os.PathLike[str]
# (field, (file name, content)), as multipart has them.
Part = tuple[str, tuple[str, bytes]]

LITTER = frozenset({"Thumbs.db", "desktop.ini"})


def support_parts(support: Support) -> tuple[list[Part], list[str]]:
    """The files of a support set and, unless they are one zip, the label of each. Raises ValueError, OSError."""
    if isinstance(support, Mapping):
        pairs = [(label, image) for label, images in support.items() for image in several(f"class {label!r}", images)]
    elif (path := Path(support)).is_dir():
        pairs = list(_folder(path))
    else:
        return [("archive", file(path))], []
    if not pairs:
        raise ValueError("no images: give each class at least one")
    return [("images", file(image, label)) for label, image in pairs], [label for label, _ in pairs]


def file(image: Image, label: str | None = None) -> tuple[str, bytes]:
    """Name and content; the name is what the service calls it by where something is wrong with it."""
    name, content = ("image", image) if isinstance(image, bytes) else (Path(image).name, Path(image).read_bytes())
    return (name if label is None else f"{label}/{name}"), content


def several(what: str, images: Iterable[Image]) -> Iterable[Image]:
    """The images, unless it is a single one, whose letters or bytes would be taken for images. Raises ValueError."""
    if isinstance(images, bytes | str | os.PathLike):
        raise ValueError(f"{what}: a list of images is needed, not one alone")
    return images


def _folder(folder: Path) -> Iterator[tuple[str, Path]]:
    """(class, image) of ``folder/<class>/<image>``, in the order of their names."""
    classes = [path for path in _visible(folder) if path.is_dir()]
    if not classes:
        raise ValueError(f"{folder} has no folders: put the images of each class into a folder named after it")
    for path in classes:
        images = _visible(path)
        if not images:
            raise ValueError(f"{path} is empty: put the images of the class into it, or remove it")
        for image in images:
            if image.is_dir():
                raise ValueError(f"{image} is a folder where an image should be: classes hold images alone")
            yield path.name, image


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in LITTER)
