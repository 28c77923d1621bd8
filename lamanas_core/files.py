"""Files that are there whole or not at all."""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DRAFT = ".new"
# So old a draft is nobody's any more: its writer was killed.
ABANDONED_S = 3600


def write_whole(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write ``path``, its folder too if need be; a kill at any moment leaves the old file or the new one, and so does
    another writer at the same time. ``mode``: its permissions, for secrets; else as the umask has it. Raises OSError.
    """
    with _drafted(path, data, mode) as draft:
        draft.replace(path)


def write_new(path: Path, data: bytes, mode: int | None = None) -> None:
    """The same, of several writers for the first alone: raises FileExistsError where ``path`` is there already."""
    with _drafted(path, data, mode) as draft:
        path.hardlink_to(draft)  # unlike a rename, refuses to replace


@contextmanager
def _drafted(path: Path, data: bytes, mode: int | None) -> Iterator[Path]:
    """A file beside ``path`` with ``data`` on the disk, to be given its name; in the end nothing of it is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_abandoned(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}{DRAFT}")  # no other writer has this name
    try:
        with os.fdopen(
            os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else mode), "wb"
        ) as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)  # whatever the umask is
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield draft
        _sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _clear_abandoned(path: Path) -> None:
    """Removes what writers of ``path`` left that were killed; a draft that somebody may still write is let alone."""
    for draft in path.parent.iterdir():
        if draft.name.startswith(f".{path.name}.") and draft.name.endswith(DRAFT):
            with suppress(OSError):  # its writer has just finished, or it is another user's
                if time.time() - draft.stat().st_mtime > ABANDONED_S:
                    draft.unlink()


def _sync_folder(folder: Path) -> None:
    """The new name survives a loss of power too, where the file system can promise that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
