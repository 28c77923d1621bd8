"""Reads a zip file of class folders, by the rule of ``lamanas_core.layout``, without trusting its metadata."""

import io
import re
import stat
import zipfile
import zlib

from app.http.problems import ARCHIVE_TOO_LARGE, INVALID_ARCHIVE, TOO_MANY_IMAGES, Problem, megabytes
from app.images.files import ImageFile, LabelledFile, SentFiles
from app.images.zip_names import Names, UnknownEncodingError, names_of
from lamanas_core import layout

CENTRAL_DIRECTORY_ENTRY = b"PK\x01\x02"
DRIVE = re.compile(r"[A-Za-z]:")
# Controls, and characters that show a name in another order than it has. Spaces, joiners and emoji of Unicode are fine.
UNREADABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# The longest path that systems allow, and more folders than people use. The format allows 65,535 bytes, which take long
# to read if all are folders.
MAX_PATH = 4096
MAX_DEPTH = 100


def read(data: bytes | bytearray, *, max_images: int, max_bytes: int) -> SentFiles:
    """The images in the class folders of a zip file and those without a label, in its order.

    Their expanded size is counted while they are inflated; other files are not inflated. Raises Problem.
    """
    # Counted before the directory is read: a zip file of 96 MB may have a million entries. The bound leaves room for
    # folders, and for the files that operating systems add for each image.
    if data.count(CENTRAL_DIRECTORY_ENTRY) > 3 * max_images + 100:
        raise Problem(TOO_MANY_IMAGES, f"archive: more than {max_images} images", field="archive")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(archive, len(data), max_images, max_bytes)
    except UnknownEncodingError as error:
        raise _wrong(str(error)) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise _wrong(f"not a readable zip file ({error})") from None


def _read(archive: zipfile.ZipFile, size: int, max_images: int, max_bytes: int) -> SentFiles:
    names = names_of(archive.infolist())
    entries = _entries(archive.infolist(), names)
    found = layout.read(entries, {name for name in entries if _is_unnamed_image(archive, name, entries[name])})
    number = len(found.images) + len(found.unlabelled)
    if number > max_images:
        text = f"archive: {number} images, at most {max_images} are accepted"
        raise Problem(TOO_MANY_IMAGES, text, field="archive")
    left = max_bytes

    def file(path: str) -> ImageFile:
        nonlocal left
        content = _inflate(archive, _readable(entries[path], path), left)
        left -= len(content)
        if left < 0:
            text = f"archive: its {megabytes(size)} expand to more than {megabytes(max_bytes)}, "
            text += "which is the most that is accepted: send fewer or smaller images"
            raise Problem(ARCHIVE_TOO_LARGE, text, field="archive", image=f"archive: {path}")
        return ImageFile(content, f"archive: {path}")

    labelled = tuple(LabelledFile(image.label, file(image.path)) for image in found.images)
    without = tuple(file(path) for path in found.unlabelled)
    guessed = (f"the names say no encoding and were read as {names.encoding}",) if names.encoding else ()
    return SentFiles(labelled, without, found.notes("adapt") + guessed)


def _entries(infos: list[zipfile.ZipInfo], names: Names) -> dict[str, zipfile.ZipInfo]:
    """The entries by their names, which are checked. Raises Problem."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for info, name in zip(infos, names.texts, strict=True):
        _check(info, name)
        if name in entries and not layout.is_litter(name) and not name.endswith("/"):
            raise _wrong("it occurs twice", name)
        entries[name] = info
    return entries


def _check(info: zipfile.ZipInfo, name: str) -> None:
    """Raises Problem if a name or the kind of its entry is not allowed in an archive of images."""
    if len(name) > MAX_PATH or name.count("/") > MAX_DEPTH:
        raise _wrong(f"its path is longer than {MAX_PATH} characters, or more than {MAX_DEPTH} folders deep", name)
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or DRIVE.match(name):
        raise _wrong("its path is absolute", name)
    if any(part in ("", ".", "..") for part in parts):
        raise _wrong("its path leaves its folder", name)
    if UNREADABLE.search(name) and not layout.is_litter(name):
        raise _wrong("its name contains characters that are not allowed", name)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _wrong("neither a file nor a folder (links are not followed)", name)


def _is_unnamed_image(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> bool:
    if not layout.without_suffix(name):
        return False
    try:
        with archive.open(_readable(info, name)) as file:
            return layout.begins_as_image(file.read(layout.HEAD))
    except (Problem, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError):
        return False  # a file that is no image is no reason to refuse the others


def _readable(info: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    if info.flag_bits & 1:
        raise _wrong("it is encrypted", name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _wrong("its compression method is neither stored nor deflated", name)
    return info


def _inflate(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    """The content of a file; of one that has more than ``most`` bytes, the first ``most`` + 1."""
    with archive.open(info) as file:
        return file.read(most + 1)


def _wrong(what: str, name: str | None = None) -> Problem:
    where = "archive" if name is None else f"archive: {name[:200]}"
    return Problem(INVALID_ARCHIVE, f"{where}: {what}", field="archive", image=None if name is None else where)
