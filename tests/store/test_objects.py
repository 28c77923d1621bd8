"""Support sets and classifiers in the object store: written before they are named, and swept once nobody names them."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from app.settings import Settings
from app.store import keys, leftovers, objects
from app.store.clients import Store, SyncStore
from app.store.errors import UNAVAILABLE, NotReady, ObjectsUnavailableError, QueueFull
from app.store.objects import Objects, classifier_name, owner_of, support_name
from app.store.reconciliation import UNNAMED_S
from app.store.records import support_to_bytes
from tests.chaos.waiting import until
from tests.conftest import PrivateRedis, test_settings
from tests.store.observing import classifier_of, object_files
from tests.store.submitting import SUPPORT, committed, create
from tests.store.test_async_store import with_store
from tests.store.test_episodes import commit

DATA = b"some bytes"
NAME = support_name("id1", DATA)


@pytest.fixture
def folder(short_folder: Path) -> Objects:
    return Objects.open(test_settings(short_folder))


def test_bytes_are_read_as_they_were_written_and_deleted_once(folder: Objects, short_folder: Path) -> None:
    assert not (short_folder / "objects").exists()  # until it is used
    assert folder.get(NAME) is None
    for _ in range(2):
        folder.put(NAME, DATA)
        assert folder.get(NAME) == DATA
    assert oct((short_folder / "objects").stat().st_mode)[-3:] == "700"
    assert [stored.name for stored in next(folder.all())] == [NAME]
    for _ in range(2):
        folder.delete([NAME, classifier_name("id1", 1, DATA)])
        assert folder.get(NAME) is None


def test_all_are_deleted_although_some_are_not_there(folder: Objects) -> None:
    names = [support_name(f"id{number}", DATA) for number in range(100)]
    for name in names[1::2]:
        folder.put(name, DATA)
    folder.delete(iter(names))
    assert not any(folder.all())


def test_a_probe_leaves_nothing_behind(folder: Objects) -> None:
    folder.probe()
    assert not any(folder.all())


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("put", "no object can be written: the object store does not respond: denied"),
        ("get", "an object that was just written cannot be read: the object store does not respond: denied"),
        ("delete", "an object can be written and read, but not deleted: the object store does not respond: denied"),
    ],
)
def test_a_probe_tells_what_cannot_be_done(
    broken: str, words: str, folder: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError("denied")

    monkeypatch.setattr(f"obstore.{broken}", denied)
    with pytest.raises(ObjectsUnavailableError) as met:
        folder.probe()
    assert str(met.value) == words


@pytest.mark.parametrize(
    ("broken", "answer", "words"),
    [
        ("get", b"others", "an object that was just written cannot be read: it is not there, or has other bytes"),
        ("delete", None, "an object can be written and read, but not deleted: it is still there"),
    ],
)
def test_a_probe_believes_only_what_it_sees(
    broken: str, answer: object, words: str, folder: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Objects, broken, lambda *_: answer)
    with pytest.raises(ObjectsUnavailableError, match=words):
        folder.probe()


def test_names_tell_the_episode_the_claim_and_the_bytes() -> None:
    names = {NAME, classifier_name("id1", 1, DATA), classifier_name("id1", 2, DATA), classifier_name("id1", 2, b"")}
    assert len(names) == 4
    assert {owner_of(name) for name in names} == {"id1"}


def test_damaged_bytes_are_as_good_as_none(folder: Objects, short_folder: Path) -> None:
    folder.put(NAME, DATA)
    (short_folder / "objects" / NAME).write_bytes(DATA[:-1])
    assert folder.get(NAME) is None


def test_a_store_that_takes_no_writes_is_unavailable(folder: Objects, short_folder: Path) -> None:
    (short_folder / "objects").mkdir()
    (short_folder / "objects" / objects.SUPPORT).write_bytes(b"")  # in place of the folder
    with pytest.raises(ObjectsUnavailableError, match="the object store does not respond") as met:
        folder.put(NAME, DATA)
    assert isinstance(met.value, UNAVAILABLE)
    assert "\n" not in str(met.value)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/some/prefix", "gs://bucket/prefix", "az://container"])
def test_a_bucket_is_opened_when_it_is_first_used(url: str, short_folder: Path) -> None:
    assert test_settings(short_folder, objects=url).objects == url


@pytest.mark.parametrize("url", ["bucket", "/folder", "file:///folder", "http://host/x", "s3://", "s3://b?x=y"])
def test_what_names_no_bucket_is_refused_at_startup(url: str, short_folder: Path) -> None:
    with pytest.raises(ValidationError, match="must be like s3://BUCKET/PREFIX"):
        test_settings(short_folder, objects=url)


def age(path: Path, seconds: float) -> None:
    """As if it had been written so long ago."""
    os.utime(path, (time.time() - seconds,) * 2)


def test_only_old_objects_that_nobody_names_are_removed(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    async def body(store: Store) -> None:
        kept, gone = (await create(store))[0].id, (await create(store))[0].id
        commit(sync_store, kept)
        # As if processes had been killed before they named what they stored, or deleted what they forgot.
        store_of = Objects.open(settings)
        orphans = [classifier_name(kept, 9, DATA), support_name(kept, DATA), support_name("nobody", DATA)]
        for name in orphans:
            store_of.put(name, DATA)
        redis_server.client.hdel(keys.SUPPORT_SETS, gone)
        files = list(settings.objects_dir.glob("*/*"))
        for file in files:
            age(file, UNNAMED_S + 60)
        young = classifier_name(kept, 10, DATA)
        store_of.put(young, DATA)
        draft = settings.objects_dir / objects.SUPPORT / "id#1"
        draft.write_bytes(b"")
        age(draft, UNNAMED_S + 60)
        [forgotten] = object_files(redis_server, gone)
        expected = {f"object {name}" for name in orphans} | {f"object support/{forgotten.name}"}
        assert set(leftovers.remove(settings, sync_store, dry_run=True)) == expected
        assert all(file.exists() for file in (*files, draft))
        assert set(leftovers.remove(settings, sync_store)) == expected
        assert not draft.exists()
        assert len(object_files(redis_server, kept)) == 3
        assert store_of.get(young) == DATA
        assert len([stored for found in store_of.all() for stored in found]) == 3
        assert classifier_of(redis_server, kept) == b"onnx"

    with_store(settings, body)


def test_what_a_killed_writer_left_is_removed_although_every_object_is_named(
    settings: Settings, sync_store: SyncStore
) -> None:
    folder = settings.objects_dir / objects.SUPPORT
    folder.mkdir(parents=True)
    old, young = folder / "id#1", folder / "id#2"
    for draft in (old, young):
        draft.write_bytes(b"")
    age(old, UNNAMED_S + 60)
    assert list(leftovers.remove(settings, sync_store, dry_run=True)) == []
    assert old.exists()
    assert list(leftovers.remove(settings, sync_store)) == []
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("stage", ["queued", "adapting", "ready"])
def test_nothing_is_left_of_a_deleted_episode(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, stage: str
) -> None:
    async def body(store: Store) -> None:
        id, expired = (await create(store))[0].id, (await create(store))[0].id
        if stage == "ready":
            commit(sync_store, id)
            commit(sync_store, expired)
        claim = sync_store.claims.claim("episode", id, "one") if stage == "adapting" else None
        await store.episodes.delete(id)
        if claim is not None:
            assert not committed(sync_store.claims, claim, {}, {}, b"late")
        until(lambda: object_files(redis_server, id) == [], "the bytes are deleted")
        redis_server.client.zadd(keys.EXPIRY, {f"{expired} owner1": 1})
        assert sync_store.reconciliation.sweep() == 1
        assert object_files(redis_server, expired) == []

    with_store(settings, body)


def test_a_commit_whose_answer_was_lost_can_be_repeated(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    async def body(store: Store) -> None:
        id = (await create(store))[0].id
        claim = sync_store.claims.claim("episode", id, "one")
        assert claim is not None
        for _ in range(2):
            assert committed(sync_store.claims, claim, {}, {}, b"onnx")
        assert classifier_of(redis_server, id) == b"onnx"
        assert redis_server.client.hget(keys.STORED_BYTES, keys.CLASSIFIERS) == b"4"

    with_store(settings, body)


def test_a_classifier_whose_bytes_were_lost_is_adapted_again(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    async def body(store: Store) -> None:
        id = (await create(store))[0].id
        commit(sync_store, id)
        assert await store.episodes.artifact(id) == b"onnx"
        for file in settings.objects_dir.glob(f"classifiers/{id}.*"):
            file.unlink()
        with pytest.raises(NotReady, match="queued"):
            await store.episodes.artifact(id)
        assert redis_server.client.hget(keys.STORED_BYTES, keys.CLASSIFIERS) == b"0"
        commit(sync_store, id)
        assert await store.episodes.artifact(id) == b"onnx"

    with_store(settings, body)


def test_a_request_that_is_refused_stores_nothing(redis_server: PrivateRedis) -> None:
    settings = test_settings(redis_server.settings.data_dir, max_queue=1)

    async def body(store: Store) -> None:
        await create(store)
        with pytest.raises(QueueFull):
            await create(store)
        assert len(list(settings.objects_dir.glob("*/*"))) == 1

    with_store(settings, body)


def test_an_episode_whose_images_took_too_long_to_store_is_refused(
    redis_server: PrivateRedis, settings: Settings
) -> None:
    client: Any = redis_server.client

    async def body(store: Store) -> None:
        put = store.episodes._objects.put_async

        async def slow(name: str, data: bytes) -> None:
            await put(name, data)
            # Simulates the time: the script compares it with when the episode was admitted.
            store.episodes._redis = Late(client_of_store)

        client_of_store = store.episodes._redis
        store.episodes._objects.put_async = slow  # type: ignore[method-assign]
        with pytest.raises(ObjectsUnavailableError, match="took too long"):
            await create(store)
        assert client.zcard(keys.index("episode")) == 0
        until(lambda: list(settings.objects_dir.glob("*/*")) == [], "the bytes are deleted")

    with_store(settings, body)


class Late:
    """A client of Redis by which every time in milliseconds that is sent is an hour earlier."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    async def evalsha(self, *args: Any) -> Any:
        return await self._redis.evalsha(*self._earlier(args))

    async def eval(self, *args: Any) -> Any:
        return await self._redis.eval(*self._earlier(args))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    @staticmethod
    def _earlier(args: tuple[Any, ...]) -> list[Any]:
        return [arg - 3_600_000 if isinstance(arg, int) and arg > 10**12 else arg for arg in args]


def test_support_sets_of_earlier_versions_are_moved_out_of_redis_once(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = redis_server.client

    def failing(name: str, data: bytes) -> None:
        raise ObjectsUnavailableError("the disk is full")

    async def body(store: Store) -> None:
        ids = [(await create(store))[0].id for _ in range(3)]
        formers = (SUPPORT.tobytes(), support_to_bytes(SUPPORT))
        for id, former in zip(ids, formers, strict=False):
            client.hdel(keys.SUPPORT_SETS, id)
            client.set(keys.former_support(id), former)
        put = sync_store.reconciliation._objects.put
        monkeypatch.setattr(sync_store.reconciliation._objects, "put", failing)
        with pytest.raises(ObjectsUnavailableError):
            sync_store.reconciliation.adopt_former()
        monkeypatch.setattr(sync_store.reconciliation._objects, "put", put)
        assert [sync_store.reconciliation.adopt_former() for _ in range(2)] == [2, 0]
        for id in ids:
            assert np.array_equal((await store.episodes.support(id))[0], SUPPORT)
            assert not client.exists(keys.former_support(id))
        reads = client.info("commandstats")["cmdstat_get"]["calls"]
        assert sync_store.reconciliation.adopt_former() == 0
        assert client.info("commandstats")["cmdstat_get"]["calls"] == reads

    with_store(settings, body)
