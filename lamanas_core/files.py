"""Atomic writes: a file exists with its whole content or not at all."""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DRAFT = ".new"
# A draft older than this was left behind by a writer that was killed.
ABANDONED_S = 3600


def write_whole(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write ``data`` to ``path`` atomically, replacing an existing file; missing parent folders are created.

    If the process is killed at any moment, or several processes write at the same time, ``path`` is one complete
    version. ``mode``: the permissions, for secrets; by default those of the umask. Raises OSError.
    """
    with _drafted(path, data, mode) as draft:
        draft.replace(path)


def write_new(path: Path, data: bytes, mode: int | None = None) -> None:
    """Like ``write_whole``, but raises FileExistsError if ``path`` exists; of concurrent writers only one succeeds."""
    with _drafted(path, data, mode) as draft:
        path.hardlink_to(draft)  # unlike a rename, this never replaces a file


@contextmanager
def _drafted(path: Path, data: bytes, mode: int | None) -> Iterator[Path]:
    """A draft next to ``path`` with ``data`` synced to disk, to be renamed or linked; removed on exit if it remains."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_abandoned(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}{DRAFT}")  # unique to this writer
    try:
        with os.fdopen(
            os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else mode), "wb"
        ) as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)  # regardless of the umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield draft
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _clear_abandoned(path: Path) -> None:
    """Remove the drafts of killed writers of ``path``; drafts that may still be in use are kept."""
    for draft in path.parent.iterdir():
        if draft.name.startswith(f".{path.name}.") and draft.name.endswith(DRAFT):
            with suppress(OSError):  # its writer has just finished, or it belongs to another user
                if time.time() - draft.stat().st_mtime > ABANDONED_S:
                    draft.unlink()


def sync_file(path: Path) -> None:
    """Make the file's content survive a power failure."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the new name survive a power failure if the file system supports syncing folders."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
