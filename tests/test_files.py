"""A file is there whole or not at all, however its writing is disturbed."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lamanas_core.files import ABANDONED_S, write_new, write_whole

Write = Callable[[Path, bytes], None]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def interrupt_with(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Has ``act`` done once, when the next file that is written has all its bytes and not yet its name."""
    sync = os.fsync

    def once(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        act()
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", once)


def fail() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_of_two_writers_at_once_both_finish_and_the_later_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, between = tmp_path / "file", []

    def other() -> None:
        write_whole(path, b"the other's")
        between.append(path.read_bytes())

    interrupt_with(monkeypatch, other)
    write_whole(path, b"mine")
    assert (between, path.read_bytes()) == ([b"the other's"], b"mine")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("write", [write_whole, write_new])
def test_a_failed_writing_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    interrupt_with(monkeypatch, fail)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "file", b"secret")
    assert names(tmp_path) == []


def test_a_failed_writing_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "file", b"before")
    interrupt_with(monkeypatch, fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_bytes() == b"before"
    assert names(tmp_path) == ["file"]


def test_the_file_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda of: synced.append((stat.S_ISDIR(os.fstat(of).st_mode), (tmp_path / "file").exists()))
    )
    write_whole(tmp_path / "file", b"x")
    assert synced == [(False, False), (True, True)]


def test_a_file_system_that_cannot_sync_a_folder_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    write_whole(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_mode_is_kept_whatever_the_umask_and_the_file_before(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"x")
    before = os.umask(0o777)
    try:
        write_whole(tmp_path / "file", b"secret", 0o640)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_new_file_does_not_replace_the_one_that_came_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_with(monkeypatch, lambda: write_new(tmp_path / "file", b"first"))
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


def test_what_killed_writers_left_goes_with_the_next_writing_and_what_is_being_written_stays(tmp_path: Path) -> None:
    left, fresh, foreign = (tmp_path / name for name in (".file.0123.new", ".file.4567.new", ".other.0123.new"))
    for path in (left, fresh, foreign):
        path.write_bytes(b"half")
    long_ago = fresh.stat().st_mtime - ABANDONED_S - 1
    for path in (left, foreign):
        os.utime(path, (long_ago, long_ago))
    write_whole(tmp_path / "file", b"x")
    assert sorted(names(tmp_path)) == [fresh.name, foreign.name, "file"]
