"""A backup holds everything that Redis names, and is restored as it was or not at all."""

import itertools
import json
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from redis.exceptions import ConnectionError

from app.settings import Settings
from app.store import backup, keys
from app.store.backup import BackupError
from app.store.clients import Store, SyncStore
from app.store.errors import Conflict, LaterRelease, NotReady
from app.store.installation import SCHEMA
from app.store.objects import Objects
from cli import private_redis
from tests import own_backbones
from tests.conftest import PrivateRedis, test_settings
from tests.store.submitting import create
from tests.store.test_async_store import with_store
from tests.store.test_backbones import card
from tests.store.test_episodes import commit
from tests.store.test_folders import claimed, run_folder


@pytest.fixture
def empty() -> Iterator[PrivateRedis]:
    """Another installation, in which nothing is."""
    folder = Path(tempfile.mkdtemp(prefix="lam-"))
    settings = test_settings(folder)
    server = PrivateRedis(settings, private_redis.start(settings))
    server.client.ping()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup.zip"


def kept(server: PrivateRedis) -> dict[bytes, object]:
    """What Redis has by each name; of sets, which have no order, the members."""
    client: Any = server.client
    names = list(client.scan_iter("lam:*"))
    return {name: client.smembers(name) if client.type(name) == b"set" else client.dump(name) for name in names}


def files(settings: Settings) -> dict[str, bytes]:
    folder = settings.objects_dir
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(settings: Settings, store: SyncStore) -> list[str]:
    """Puts an adapted and a queued episode, a key, a data set and a model with its backbone into an installation;
    returns the episodes' ids.
    """
    ids: list[str] = []

    async def body(asynchronous: Store) -> None:
        for _ in range(2):
            ids.append((await create(asynchronous))[0].id)
            if len(ids) == 1:
                commit(store, ids[0])

    store.installation.admit()
    store.installation.check()
    store.api_keys.create("laptop", ["predict"])
    with_store(settings, body)
    (settings.data_dir / "parts" / "a").mkdir(parents=True)
    (settings.data_dir / "parts" / "a" / "1.png").write_bytes(b"image")
    store.folders.put_dataset("parts", settings.data_dir / "parts", settings.data_dir)
    with pytest.MonkeyPatch.context() as patching:
        own_backbones.move_to(settings.data_dir, patching)
        store.models.register("b" * 16, b"weights", card(own_backbones.write(1)))
    return ids


def test_a_restored_installation_is_the_same(
    redis_server: PrivateRedis, sync_store: SyncStore, empty: PrivateRedis, file: Path
) -> None:
    client: Any = redis_server.client
    fill(redis_server.settings, sync_store)
    client.set(keys.tombstone("episode", "gone"), "owner", px=3_600_000)
    client.set("another's", "key")
    before, objects = kept(redis_server), files(redis_server.settings)
    client.zadd(keys.workers("adapt"), {"worker": 1})
    client.hset(keys.WORKER_RECORDS, "worker", "{}")
    assert len(objects) == 6
    assert sync_store.backup.write(file) == (len(before), 5)
    other = SyncStore.open(empty.settings)
    assert other.backup.restore(file) == (len(before), 5)
    assert kept(empty) == before
    assert files(empty.settings) == objects
    left: Any = empty.client.pttl(keys.tombstone("episode", "gone"))
    assert 3_000_000 < left <= 3_600_000
    other.installation.check()
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_what_changes_during_a_backup_is_restored_as_it_was_before_or_after(
    redis_server: PrivateRedis,
    sync_store: SyncStore,
    empty: PrivateRedis,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, ids = redis_server.settings, {}
    ids["deleted"], ids["adapted before"] = fill(settings, sync_store)
    snapshot = sync_store.backup._snapshot

    def changed_meanwhile() -> Any:
        commit(sync_store, ids["adapted before"])  # its classifier is written after the objects were read
        found = snapshot()

        async def body(store: Store) -> None:
            await store.episodes.delete(ids["deleted"])
            ids["new"] = (await create(store, idempotency_key="new"))[0].id

        with_store(settings, body)
        assert sync_store.claims.claim("episode", ids["claimed"], "one") is not None
        commit(sync_store, ids["adapted after"])
        return found

    async def two_more(store: Store) -> None:
        for name in ("claimed", "adapted after"):
            ids[name] = (await create(store))[0].id

    with_store(settings, two_more)
    monkeypatch.setattr(sync_store.backup, "_snapshot", changed_meanwhile)
    sync_store.backup.write(file)
    other = SyncStore.open(empty.settings)
    other.backup.restore(file)
    assert other.reconciliation.sweep() == 1
    assert other.reconciliation.due("episode") == [ids["claimed"]]
    claim = other.claims.claim_next("any", "one")
    assert claim is not None
    assert claim.id == ids["claimed"]
    assert other.claims.claim_next("any", "two") is None

    async def body(store: Store) -> None:
        listed, _ = await store.episodes.page("owner1", 10)
        assert {record.id for record in listed} == {
            ids[name] for name in ("adapted before", "claimed", "adapted after")
        }
        assert await store.episodes.artifact(ids["adapted before"]) == b"onnx"
        with pytest.raises(NotReady):  # it is adapted again
            await store.episodes.artifact(ids["adapted after"])
        for id in (ids["adapted before"], ids["adapted after"]):
            assert (await store.episodes.support(id))[0].shape == (4, 1, 28, 28)
        assert (await create(store, idempotency_key="new"))[0].id != ids["new"]

    with_store(empty.settings, body)
    assert not [name for name in files(empty.settings) if ids["deleted"] in name]


@pytest.mark.parametrize("what", ["redis", "objects"])
def test_a_backup_is_restored_into_nothing_but_an_empty_installation(
    redis_server: PrivateRedis, sync_store: SyncStore, empty: PrivateRedis, file: Path, what: str
) -> None:
    fill(redis_server.settings, sync_store)
    sync_store.backup.write(file)
    other = SyncStore.open(empty.settings)
    if what == "redis":
        other.api_keys.create("mine", ["predict"])
    else:
        Objects.open(empty.settings).put_installation("other")
    before, objects = kept(empty), files(empty.settings)
    with pytest.raises(Conflict, match="is restored into an empty"):
        other.backup.restore(file)
    assert kept(empty) == before
    assert files(empty.settings) == objects


def test_a_backup_does_not_replace_a_file(sync_store: SyncStore, file: Path) -> None:
    file.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        sync_store.backup.write(file)
    assert file.read_bytes() == b"mine"


def test_nothing_is_left_of_a_backup_that_fails(redis_server: PrivateRedis, sync_store: SyncStore, file: Path) -> None:
    redis_server.process.kill()
    with pytest.raises(ConnectionError):
        sync_store.backup.write(file)
    assert list(file.parent.iterdir()) == []


def test_what_is_replaced_meanwhile_is_the_latest_in_the_backup(
    redis_server: PrivateRedis,
    sync_store: SyncStore,
    empty: PrivateRedis,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = redis_server.settings
    fill(settings, sync_store)
    claim = claimed(settings, sync_store)
    epochs = itertools.count(1)

    def keep() -> None:
        """The run goes on: its checkpoint, and the data set, replace those before."""
        epoch = next(epochs)
        (settings.data_dir / "parts" / "a" / "1.png").write_bytes(b"%d" % epoch)
        sync_store.folders.put_dataset("parts", settings.data_dir / "parts", settings.data_dir)
        sync_store.folders.keep_checkpoint(claim, epoch, run_folder(settings, claim.id, b"%d" % epoch))

    keep()
    add, snapshot, calls = sync_store.backup._add_objects, sync_store.backup._snapshot, itertools.count(1)

    def add_and_keep(*arguments: Any) -> Any:
        if next(calls) == 3:  # between what names them and the objects themselves
            keep()
        added = add(*arguments)
        keep()
        return added

    def keep_and_snapshot() -> Any:
        keep()
        return snapshot()

    with monkeypatch.context() as patched:
        patched.setattr(sync_store.backup, "_snapshot", keep_and_snapshot)
        patched.setattr(sync_store.backup, "_add_objects", add_and_keep)
        patched.setattr(backup, "TRIES", 3)
        sync_store.backup.write(file)
    other = SyncStore.open(empty.settings)
    other.backup.restore(file)
    parts = other.folders.dataset("parts", empty.settings.unpacked_datasets_dir)
    assert parts is not None
    other.folders.fetch_checkpoint(claim.id, empty.settings.runs_dir / claim.id)
    checkpoint = (empty.settings.runs_dir / claim.id / "checkpoint.safetensors").read_bytes()
    assert (parts / "a" / "1.png").read_bytes() == checkpoint != b"1"


def test_a_redis_without_its_object_store_is_not_backed_up(
    redis_server: PrivateRedis, sync_store: SyncStore, file: Path
) -> None:
    fill(redis_server.settings, sync_store)
    shutil.rmtree(redis_server.settings.objects_dir)
    with pytest.raises(Conflict, match="do not belong together"):
        sync_store.backup.write(file)
    assert list(file.parent.iterdir()) == []


def test_a_backup_under_way_is_not_disturbed_by_another_to_the_same_file(
    sync_store: SyncStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    episodes = sync_store.backup._episodes

    def meanwhile() -> Any:
        monkeypatch.setattr(sync_store.backup, "_episodes", episodes)
        with pytest.raises(FileExistsError):
            sync_store.backup.write(file)
        return episodes()

    monkeypatch.setattr(sync_store.backup, "_episodes", meanwhile)
    sync_store.backup.write(file)
    assert ZipFile(file).testzip() is None
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_damaged_backup_is_told_before_anything_is_restored(
    redis_server: PrivateRedis, sync_store: SyncStore, empty: PrivateRedis, file: Path
) -> None:
    fill(redis_server.settings, sync_store)
    sync_store.backup.write(file)
    data = file.read_bytes()
    file.write_bytes(data.replace(b"onnx", b"xnno", 1))
    with pytest.raises(BackupError, match="damaged: objects/classifiers/"):
        SyncStore.open(empty.settings).backup.restore(file)
    assert kept(empty) == {}
    assert files(empty.settings) == {}


def write_zip(file: Path, **members: str) -> None:
    with ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_", "."), text)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (None, "is not a backup"),
        ({"redis_jsonl": ""}, "is not a backup, or was not written to its end"),
        ({"backup_json": "{}"}, "is not a backup"),
        ({"backup_json": json.dumps({"format": backup.FORMAT, "schema": SCHEMA + 1})}, "from a later release"),
    ],
)
def test_what_is_no_backup_of_this_release_is_refused(
    sync_store: SyncStore, file: Path, members: dict[str, str] | None, words: str
) -> None:
    if members is None:
        file.write_bytes(b"PK, nearly")
    else:
        write_zip(file, **members)
    with pytest.raises(BackupError, match=words):
        sync_store.backup.restore(file)


def test_a_value_that_an_older_redis_cannot_read_is_told(sync_store: SyncStore, file: Path) -> None:
    line = json.dumps({"key": "lam:x", "value": "AAAA", "expires_in_ms": -1})
    about = json.dumps({"format": backup.FORMAT, "schema": SCHEMA})
    write_zip(file, backup_json=about, redis_jsonl=line)
    with pytest.raises(BackupError, match="older than the one that the backup was made from"):
        sync_store.backup.restore(file)


def test_a_release_makes_the_form_of_an_earlier_one_its_own(redis_server: PrivateRedis, sync_store: SyncStore) -> None:
    client: Any = redis_server.client
    client.set(keys.SCHEMA, SCHEMA - 1)
    sync_store.installation.admit()
    assert int(client.get(keys.SCHEMA)) == SCHEMA


def test_a_release_refuses_what_a_later_one_has_written(redis_server: PrivateRedis, sync_store: SyncStore) -> None:
    client: Any = redis_server.client
    sync_store.installation.admit()
    assert int(client.get(keys.SCHEMA)) == SCHEMA
    sync_store.installation.admit()
    client.set(keys.SCHEMA, SCHEMA + 1)
    for look in (sync_store.installation.admit, sync_store.installation.schema):
        with pytest.raises(LaterRelease, match=f"schema {SCHEMA + 1}; this one knows {SCHEMA}"):
            look()
    assert int(client.get(keys.SCHEMA)) == SCHEMA + 1
