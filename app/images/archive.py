"""Reads a zip file with entries ``<label>/<file>``, without trusting its metadata."""

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from app.http.problems import ARCHIVE_TOO_LARGE, INVALID_ARCHIVE, TOO_MANY_IMAGES, Problem

CENTRAL_DIRECTORY_ENTRY = b"PK\x01\x02"
DRIVE = re.compile(r"[A-Za-z]:")
BLOCK = 64 * 1024
LITTER = frozenset({"Thumbs.db", "desktop.ini"})


def read(data: bytes | bytearray, *, max_images: int, max_bytes: int) -> Iterator[tuple[str, str, bytes]]:
    """(label, path, bytes) of each file, in the archive's order, without folders and files that operating systems add.

    The expanded size is counted while the files are inflated. Raises Problem.
    """
    # Counted before the directory is read: a zip file of 32 MB may have a million entries. The bound leaves room for
    # folders, and for the files that operating systems add for each image.
    if data.count(CENTRAL_DIRECTORY_ENTRY) > 3 * max_images + 100:
        raise Problem(TOO_MANY_IMAGES, f"archive: more than {max_images} images", field="archive")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            wanted = [info for info in archive.infolist() if not _is_litter(_checked(info))]
            if len(wanted) > max_images:
                text = f"archive: {len(wanted)} images, at most {max_images} are accepted"
                raise Problem(TOO_MANY_IMAGES, text, field="archive")
            left = max_bytes
            for info in wanted:
                content = _inflate(archive, info, left, max_bytes)
                left -= len(content)
                label, _ = info.filename.split("/")
                yield label, info.filename, content
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise _wrong(f"not a readable zip file ({error})") from None


def _checked(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """The entry, if its name and kind are allowed in an archive of images. Raises Problem."""
    # orig_filename, since zipfile cuts names at a NUL and replaces the system's separators.
    name = info.orig_filename
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or "\\" in name or DRIVE.match(name) or not name.isprintable():
        raise _wrong("its path is absolute or contains characters that are not allowed", name)
    if any(part in ("", ".", "..") for part in parts):
        raise _wrong("its path leaves its folder", name)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _wrong("neither a file nor a folder (links are not followed)", name)
    if info.flag_bits & 1:
        raise _wrong("it is encrypted", name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _wrong("its compression method is neither stored nor deflated", name)
    if not _is_litter(info) and len(parts) != 2:
        raise _wrong("its path is not <label>/<file>", name)
    return info


def _is_litter(info: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(info.orig_filename)
    return info.is_dir() or "__MACOSX" in path.parts or path.name.startswith(".") or path.name in LITTER


def _inflate(archive: zipfile.ZipFile, info: zipfile.ZipInfo, left: int, max_bytes: int) -> bytes:
    content = bytearray()
    with archive.open(info) as file:
        while block := file.read(BLOCK):
            content += block
            if len(content) > left:
                text = f"archive: its files expand to more than {max_bytes} bytes"
                raise Problem(ARCHIVE_TOO_LARGE, text, field="archive", image=f"archive: {info.filename[:200]}")
    return bytes(content)


def _wrong(what: str, name: str | None = None) -> Problem:
    where = "archive" if name is None else f"archive: {name[:200]}"
    return Problem(INVALID_ARCHIVE, f"{where}: {what}", field="archive", image=None if name is None else where)
