"""How a folder is read, whatever it comes from: names of files -> classes, splits, and what is said about the rest.

The rule is described in docs/folders.md. It sees names only, and it is the same for a zip that the service is sent
(``app.images.archive``), for a folder that a client sends (``lamanas_client.images``) and for a data set
(``lamanas_core.data.folders``). The page's copy is ``app/static/layout.js``; ``tests/layouts.json`` holds both to one
table. This module imports the standard library only.
"""

import os
import re
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]
Use = Literal["adapt", "train"]

# A file with one of these claims to be an image: where it cannot be read, that is an error.
IMAGE_SUFFIXES = frozenset(
    {"png", "apng", "jpg", "jpeg", "jpe", "jfif", "jif", "webp", "gif", "bmp", "dib", "tif", "tiff", "heic", "heif"}
    | {"hif", "avif", "jp2", "jxl", "ppm", "pgm", "pbm", "pnm"}
)
# How image files begin; of files without a suffix, those that do are images, too. WebP and HEIF begin with a size.
SIGNATURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
SIGNATURES_AT = {4: (b"ftypheic", b"ftypmif1", b"ftypavif"), 8: (b"WEBP",)}
HEAD = 16
# What operating systems and programs leave in folders, besides names that begin with a dot; in lower case.
LITTER = frozenset(
    {"__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"}
    | {"@eadir", "lost+found"}
)
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# A folder of this name, in any case and at any depth, has images without a label; it is never a class.
UNLABELLED_FOLDER = "_unlabelled"
# A note lists at most this many names.
LISTED = 10
# The same in the page's copy: the white space of Unicode and the byte order mark.
SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_ENDS = re.compile(f"^[{SPACES}]+|[{SPACES}]+$")
_DIGITS = re.compile(r"([0-9]+)")

# The folders of a path, from the outermost.
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """An image of a class. ``label``: the class, its folder's path. ``split``: None if the folder has no splits."""

    path: str
    label: str
    split: Split | None


@dataclass(frozen=True)
class Layout:
    """A folder as it was read.

    ``images`` and ``unlabelled``, the images without a label: in the order of the paths given. ``loose``: images that
    lie in no class folder. ``skipped``: files that are no images. ``empty``: folders without files. ``splits``: the
    names of the folders that are splits, if there are any, training first. ``joined``: labels of several folders, whose
    names differ only in spaces at their ends and in how they are encoded. All but the images and the splits are in
    natural order.
    """

    images: tuple[Image, ...]
    unlabelled: tuple[str, ...]
    loose: tuple[str, ...]
    skipped: tuple[str, ...]
    empty: tuple[str, ...]
    splits: tuple[str, ...]
    joined: tuple[str, ...]

    def notes(self, use: Use, *, loose_added: bool = False) -> tuple[str, ...]:
        """What is to be told about the reading, a sentence each; nothing if all files are images of plain classes.

        ``loose_added``: the loose images are not skipped, since they have been given a class in some other way.
        """
        unlabelled = len(self.unlabelled)
        added = len(self.images) + (unlabelled if use == "adapt" else 0) + (len(self.loose) if loose_added else 0)
        skipped = natural([*self.skipped, *(() if loose_added else self.loose)])
        notes = [f"{added} added, {len(skipped)} skipped: {listed(skipped)}"] if skipped else []
        if self.loose and not loose_added:
            notes.append(f"images outside class folders were skipped: {listed(self.loose)}")
        if unlabelled and use == "train":
            notes.append(
                f"{unlabelled} images in folders named {UNLABELLED_FOLDER} belong to no class and were not used"
            )
        if self.empty:
            notes.append(f"folders without images: {listed(self.empty)}")
        if self.splits:
            names = f"{', '.join(self.splits[:-1])} and {self.splits[-1]}"
            notes.append(
                f"{names} are splits: the images of a class are joined"
                if use == "adapt"
                else f"{names} are the splits of the training"
            )
        nested = natural({image.label for image in self.images if "/" in image.label})
        if nested:
            notes.append(f"folders are nested: a class is named by the path of its folder, e.g. {nested[0]}")
        for label in self.joined:
            notes.append(f"folders whose names look the same are one class: {label}")
        return tuple(notes)


def read(paths: Iterable[str], unnamed: Collection[str] = ()) -> Layout:
    """The layout of files with these ``paths``, relative and separated by "/"; a folder's path ends with "/".

    ``unnamed``: those of the files ``without_suffix`` that are images by their first bytes (``begins_as_image``).
    """
    visible = [path for path in paths if not is_litter(path)]
    files = [path for path in visible if not path.endswith("/")]
    images = [path for path in files if is_image(path) or path in unnamed]
    unlabelled = tuple(path for path in images if _is_unlabelled(path))
    folders = _unwrapped({path: _folder(path) for path in images if not _is_unlabelled(path)})
    splits = _splits(folders.values())
    placed: dict[str, tuple[Split | None, Parts]] = {}
    for path, folder in folders.items():
        if splits and not (folder and folder[0] in splits):
            placed[path] = (None, ())
        else:
            placed[path] = (splits[folder[0]], folder[1:]) if splits else (None, folder)
    if splits:
        inner = _unwrapped({path: folder for path, (_, folder) in placed.items()})
        placed = {path: (split, inner[path]) for path, (split, _) in placed.items()}
    found = tuple(Image(path, label(folder), split) for path, (split, folder) in placed.items() if folder)
    return Layout(
        images=found,
        unlabelled=unlabelled,
        loose=natural(path for path, (_, folder) in placed.items() if not folder),
        skipped=natural(set(files) - set(images)),
        empty=_empty(visible),
        splits=tuple(sorted(splits, key=lambda name: (SPLITS.index(splits[name]), natural_key(name)))),
        joined=joined(folder for _, folder in placed.values() if folder),
    )


def is_litter(path: str) -> bool:
    """Whether a file or folder is hidden, or lies in a hidden folder, or is left by an operating system."""
    return any(part.startswith(".") or part.lower() in LITTER for part in path.rstrip("/").split("/"))


def is_image(path: str) -> bool:
    """Whether a file claims to be an image, by its suffix."""
    name = path.rsplit("/", 1)[-1]
    return "." in name and _ENDS.sub("", name.rsplit(".", 1)[1]).lower() in IMAGE_SUFFIXES


def without_suffix(path: str) -> bool:
    """Whether a visible file's name has no suffix, so that its first bytes decide whether it is an image."""
    return "." not in path.rsplit("/", 1)[-1] and not path.endswith("/") and not is_litter(path)


def begins_as_image(head: bytes) -> bool:
    """Whether a file with these first ``HEAD`` bytes is an image, as far as they show."""
    return head.startswith(SIGNATURES) or any(head.startswith(known, at) for at, known in SIGNATURES_AT.items())


def label(folder: Sequence[str]) -> str:
    """The label of the class in this folder: its path in NFC, without spaces at the ends of names."""
    return "/".join(trimmed(unicodedata.normalize("NFC", part)) for part in folder)


def joined(folders: Iterable[Parts]) -> tuple[str, ...]:
    """The labels that several of these folders have, in natural order."""
    labels = Counter(map(label, set(folders)))
    return natural(name for name, spellings in labels.items() if spellings > 1)


def trimmed(name: str) -> str:
    """``name`` without white space at its ends."""
    return _ENDS.sub("", name)


def natural(names: Iterable[str]) -> tuple[str, ...]:
    """In the order in which people list them: "image 2" before "image 10", whatever the case."""
    return tuple(sorted(names, key=natural_key))


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """The key of natural order."""
    parts = _DIGITS.split(name.lower())
    parts[1::2] = [number.lstrip("0") for number in parts[1::2]]
    return [(len(part) if at % 2 else 0, part) for at, part in enumerate(parts)], name


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def read_folder(folder: Path) -> Layout:
    """The layout of a folder on this machine. Raises OSError, and ValueError for an image whose name is not text."""
    paths = listing(folder)
    # A name that is not text is not the name by which its file can be opened.
    openable = (path for path in paths if without_suffix(path) and (folder / path).is_file())
    return read(paths, {path for path in openable if begins_as_image(_head(folder / path))})


def listing(folder: Path) -> list[str]:
    """The paths of all files and folders in ``folder``, for ``read``, sorted by their parts; folders end with "/".

    Links are followed, but not into a folder that the path goes through already. Hidden folders are not entered.
    Raises OSError, and ValueError for an image whose name is not text.
    """
    found: list[str] = []

    def failed(error: OSError) -> None:
        raise error

    # The folders that each path goes through, by links too: two folders may have links to each other.
    through: dict[Path, frozenset[Path]] = {}
    for root, folders, files in os.walk(folder, followlinks=True, onerror=failed):
        here = Path(root).resolve()
        above = through.pop(Path(root), frozenset()) | {here, *here.parents}
        folders[:] = [name for name in folders if not is_litter(name) and Path(root, name).resolve() not in above]
        through.update((Path(root, name), above) for name in folders)
        relative = Path(root).relative_to(folder)
        found += [(relative / name).as_posix() for name in files if Path(root, name).is_file()]
        found += [f"{(relative / name).as_posix()}/" for name in folders]
    return sorted(map(_as_text, found), key=lambda path: path.split("/"))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _as_text(path: str) -> str:
    """The path without bytes that are not UTF-8, which Python passes on as lone surrogates."""
    text = path.encode(errors="replace").decode()
    if text != path and is_image(path) and not is_litter(path):
        raise ValueError(f"{text}: its name is not UTF-8 text; rename it, or its folder")
    return text


# ---------------------------------------------------------------------- the parts of the rule


def _folder(path: str) -> Parts:
    """The folders of a file, but for those that cannot name a class, as their names are white space."""
    return tuple(part for part in path.split("/")[:-1] if trimmed(part))


def _is_unlabelled(path: str) -> bool:
    return any(trimmed(part).lower() == UNLABELLED_FOLDER for part in path.split("/")[:-1])


def _unwrapped(folders: dict[str, Parts]) -> dict[str, Parts]:
    """Without the folders that wrap everything: while all images in folders are in one, and some deeper in it.

    Images that then lie beside the class folders lie in none.
    """
    depth = 0  # The folders are cut once, since names of an archive may be thousands of folders deep.
    while True:
        inside = [folder for folder in folders.values() if len(folder) > depth]
        if len({folder[depth] for folder in inside}) != 1 or all(len(folder) == depth + 1 for folder in inside):
            return {path: folder[depth:] for path, folder in folders.items()}
        depth += 1


def _splits(folders: Collection[Parts]) -> dict[str, Split]:
    """Which of the outermost folders are splits; empty if they are classes.

    They are splits if they have at least two of the three meanings, and contain class folders, with a class in common
    or without any other folder beside them.
    """
    tops = {folder[0] for folder in folders if folder}
    named = {top: SPLIT_NAMES[name] for top in tops if (name := trimmed(top).lower()) in SPLIT_NAMES}
    if len(set(named.values())) < 2:
        return {}
    holders: dict[str, set[Split]] = defaultdict(set)
    for folder in folders:
        if len(folder) > 1 and folder[0] in named:
            holders[label(folder[1:])].add(named[folder[0]])
    common = any(len(splits) > 1 for splits in holders.values())
    return named if common or (holders and len(named) == len(tops)) else {}


def _empty(visible: Sequence[str]) -> tuple[str, ...]:
    """Folders that contain no files, the outermost of them."""
    # In the order of the alphabet, what is in a folder follows it; the prefixes of deep names would fill the memory.
    files = sorted(path for path in visible if not path.endswith("/"))
    outermost: list[str] = []
    for folder in sorted(path for path in set(visible) if path.endswith("/")):
        at = bisect_left(files, folder)
        inhabited = at < len(files) and files[at].startswith(folder)
        if not inhabited and not (outermost and folder.startswith(outermost[-1])):
            outermost.append(folder)
    return natural(outermost)
