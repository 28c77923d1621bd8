"""Data sets and checkpoints in the object store: whole or not at all, replaced without a trace, kept while needed."""

import os
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.store import keys, leftovers
from app.store.claims import Claim
from app.store.clients import Store, SyncStore
from app.store.errors import NotFound
from app.store.folders import STORED_AS
from app.store.reconciliation import UNNAMED_S
from tests.conftest import PrivateRedis
from tests.store.submitting import DRAWINGS
from tests.store.test_async_store import with_store
from tests.store.test_trainings import lose, running


def claimed(settings: Settings, sync_store: SyncStore) -> Claim:
    """A worker's claim on a new run."""

    claims: list[Claim] = []

    async def body(store: Store) -> None:
        claims.append((await running(store, sync_store))[1])

    with_store(settings, body)
    return claims[0]


def run_folder(settings: Settings, id: str, checkpoint: bytes) -> Path:
    """The folder of a run with this checkpoint and what else is in one."""
    folder = settings.runs_dir / id
    for name in ("phi/000001.safetensors", "checkpoint.safetensors", "tensorboard/events"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(checkpoint)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def stored(settings: Settings) -> list[str]:
    """The names of all objects of folders."""
    return [
        f"{path.parent.name}/{path.name}"
        for kind in ("checkpoints", "datasets")
        for path in (settings.objects_dir / kind).glob("*")
    ]


def test_another_machine_gets_the_last_checkpoint_of_a_run(settings: Settings, sync_store: SyncStore) -> None:
    claim = claimed(settings, sync_store)
    for epoch in (1, 2):
        folder = run_folder(settings, claim.id, b"epoch %d" % epoch)
        assert sync_store.folders.keep_checkpoint(claim, epoch, folder)
    assert len(stored(settings)) == 1
    other = settings.data_dir / "other" / claim.id
    other.mkdir(parents=True)
    (other / "checkpoint.safetensors").write_bytes(b"older")
    (other / "stale").write_bytes(b"")
    sync_store.folders.fetch_checkpoint(claim.id, other)
    expected = dict.fromkeys(("checkpoint.safetensors", "phi/000001.safetensors"), b"epoch 2")
    assert contents(other) == expected
    assert [path.name for path in other.parent.iterdir()] == [claim.id]


def test_a_folder_that_is_as_far_as_what_is_stored_is_left_as_it_is(settings: Settings, sync_store: SyncStore) -> None:
    claim = claimed(settings, sync_store)
    folder = run_folder(settings, claim.id, b"1")
    sync_store.folders.fetch_checkpoint(claim.id, folder)  # nothing is stored
    sync_store.folders.keep_checkpoint(claim, 1, folder)
    (folder / "checkpoint.safetensors").write_bytes(b"2")  # its worker was killed before it stored this one
    sync_store.folders.fetch_checkpoint(claim.id, folder)
    assert contents(folder)["checkpoint.safetensors"] == b"2"


def test_a_worker_that_has_lost_its_claim_keeps_no_checkpoint(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    claim = claimed(settings, sync_store)
    folder = run_folder(settings, claim.id, b"1")
    assert sync_store.folders.keep_checkpoint(claim, 1, folder)
    kept = stored(settings)
    lose(redis_server, sync_store, claim)
    assert sync_store.claims.claim("training", claim.id, "two") is not None
    (folder / "checkpoint.safetensors").write_bytes(b"late")
    assert not sync_store.folders.keep_checkpoint(claim, 2, folder)
    assert stored(settings) == kept


@pytest.mark.parametrize("end", ["finished", "removed"])
def test_nothing_is_left_of_a_run_that_nobody_resumes(settings: Settings, sync_store: SyncStore, end: str) -> None:
    claim = claimed(settings, sync_store)
    sync_store.folders.keep_checkpoint(claim, 1, run_folder(settings, claim.id, b"1"))
    if end == "finished":
        assert sync_store.claims.commit_training(claim, "v2", b"weights", DRAWINGS)
    else:
        assert sync_store.claims.fail(claim, "no such data")
        assert len(stored(settings)) == 1  # it may be resumed
        assert sync_store.trainings.remove(claim.id)
    assert stored(settings) == []
    other = settings.data_dir / "other"
    sync_store.folders.fetch_checkpoint(claim.id, other)
    assert not other.exists()


def images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_data_set_is_unpacked_once_and_replaced_as_a_whole(
    settings: Settings, sync_store: SyncStore, tmp_path: Path
) -> None:
    cache = settings.unpacked_datasets_dir
    assert sync_store.folders.dataset("parts", cache) is None
    first = images(tmp_path / "first", "a/1.png", "b/größe 2.png", "b/.DS_Store", ".git/config")
    assert sync_store.folders.put_dataset("parts", first, tmp_path) == 2
    folder = sync_store.folders.dataset("parts", cache)
    assert folder is not None
    assert folder.name == "parts"
    assert set(contents(folder)) == {"a/1.png", "b/größe 2.png"}
    at = (folder / "a").stat().st_mtime_ns
    assert sync_store.folders.dataset("parts", cache) == folder
    assert (folder / "a").stat().st_mtime_ns == at
    sync_store.folders.put_dataset("parts", images(tmp_path / "second", "c/1.png"), tmp_path)
    sync_store.folders.put_dataset("others", first, tmp_path)
    assert sync_store.folders.datasets() == ["others", "parts"]
    assert len(stored(settings)) == 2
    again = sync_store.folders.dataset("parts", cache)
    assert again is not None
    assert set(contents(again)) == {"c/1.png"}
    assert not folder.exists()
    for name in ("parts", "others"):
        sync_store.folders.remove_dataset(name)
    assert stored(settings) == sync_store.folders.datasets() == []
    with pytest.raises(NotFound, match="no stored data set 'parts'"):
        sync_store.folders.remove_dataset("parts")


def test_a_folder_without_files_is_no_data_set(sync_store: SyncStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no files"):
        sync_store.folders.put_dataset("parts", tmp_path, tmp_path)


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_data_set_is_told_and_leaves_nothing_behind(
    settings: Settings, sync_store: SyncStore, tmp_path: Path, damage: str
) -> None:
    sync_store.folders.put_dataset("parts", images(tmp_path / "parts", "a/1.png"), tmp_path)
    [path] = (settings.objects_dir / "datasets").iterdir()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(NotFound, match="must be the same for all workers"):
        sync_store.folders.dataset("parts", tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_packed_folders_are_no_leftovers_while_they_are_named(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, tmp_path: Path
) -> None:
    client: Any = redis_server.client
    claim = claimed(settings, sync_store)
    sync_store.folders.put_dataset("parts", images(tmp_path / "parts", "a/1.png"), tmp_path)
    sync_store.folders.keep_checkpoint(claim, 1, run_folder(settings, claim.id, b"1"))
    names = stored(settings)
    for name in names:
        path = settings.objects_dir / name
        os.utime(path, (path.stat().st_mtime - UNNAMED_S - 60,) * 2)
    assert list(leftovers.remove(settings, sync_store)) == []
    client.delete(keys.DATASETS, keys.CHECKPOINTS)
    assert set(leftovers.remove(settings, sync_store)) == {f"object {name}" for name in names}


def test_a_run_whose_stored_checkpoint_is_gone_goes_on_from_what_the_machine_has(
    settings: Settings, sync_store: SyncStore
) -> None:
    claim = claimed(settings, sync_store)
    folder = run_folder(settings, claim.id, b"1")
    sync_store.folders.keep_checkpoint(claim, 1, folder)
    [name] = stored(settings)
    (settings.objects_dir / name).unlink()
    (folder / STORED_AS).unlink()
    sync_store.folders.fetch_checkpoint(claim.id, folder)
    assert contents(folder)["checkpoint.safetensors"] == b"1"


def test_files_from_before_there_were_zips_are_stored(
    settings: Settings, sync_store: SyncStore, tmp_path: Path
) -> None:
    os.utime(images(tmp_path / "parts", "a/1.png") / "a" / "1.png", (0, 0))
    assert sync_store.folders.put_dataset("parts", tmp_path / "parts", tmp_path) == 1


def test_two_workers_that_share_a_disk_unpack_a_data_set_at_once(
    settings: Settings, sync_store: SyncStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync_store.folders.put_dataset("parts", images(tmp_path / "parts", "a/1.png"), tmp_path)
    other = SyncStore.open(settings)
    get_file = sync_store.folders._objects.get_file
    first: list[Path | None] = []

    def after_the_other(name: str, path: Path) -> bool:
        first.append(other.folders.dataset("parts", tmp_path / "cache"))
        return get_file(name, path)

    monkeypatch.setattr(sync_store.folders._objects, "get_file", after_the_other)
    monkeypatch.setattr(other.folders._objects, "get_file", get_file)
    second = sync_store.folders.dataset("parts", tmp_path / "cache")
    assert first == [second]
    assert second is not None
    assert set(contents(second)) == {"a/1.png"}
