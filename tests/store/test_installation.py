"""Nothing is removed where Redis and the object store do not belong together."""

import logging
import os
from typing import Any

import pytest

from app.settings import Settings
from app.store import keys, leftovers
from app.store.clients import Store, SyncStore
from app.store.errors import ForeignObjects
from app.store.objects import Objects, support_name
from tests.chaos.waiting import until
from tests.conftest import PrivateRedis
from tests.store.submitting import create
from tests.store.test_async_store import with_store
from workers.sweep import Sweep

NAME = support_name("nobody", b"bytes")


def put_old(settings: Settings) -> None:
    """An object that Redis does not name, old enough to be removed."""
    Objects.open(settings).put(NAME, b"bytes")
    os.utime(settings.objects_dir / NAME, (0, 0))


def put_old_run(settings: Settings) -> None:
    (settings.runs_dir / keys.first_id(1)).mkdir(parents=True)


def id_of(server: PrivateRedis) -> str:
    found: Any = server.client.get(keys.INSTALLATION)
    return str(found.decode())


def refused(settings: Settings, store: SyncStore, message: str) -> None:
    """Removing is refused with this message, and everything is still there."""
    put_old_run(settings)
    with pytest.raises(ForeignObjects, match=message):
        list(leftovers.remove(settings, store))
    assert Objects.open(settings).get(NAME) == b"bytes"
    assert len(list(settings.runs_dir.iterdir())) == 1


def test_an_empty_object_store_becomes_that_of_its_redis(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    for _ in range(2):
        sync_store.installation.check()
        assert Objects.open(settings).installations() == [id_of(redis_server)]
        assert redis_server.client.ttl(keys.INSTALLATION) == -1
    put_old(settings)
    assert list(leftovers.remove(settings, sync_store)) == [f"object {NAME}"]


def test_objects_of_an_earlier_version_that_redis_names_belong_to_it(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    async def body(store: Store) -> None:
        await create(store)
        put_old(settings)
        assert list(leftovers.remove(settings, sync_store)) == [f"object {NAME}"]
        assert Objects.open(settings).installations() == [id_of(redis_server)]

    with_store(settings, body)


def test_a_redis_that_names_no_object_removes_none(settings: Settings, sync_store: SyncStore) -> None:
    put_old(settings)
    refused(settings, sync_store, "Redis names none of the objects")


def test_a_redis_that_has_lost_its_data_removes_nothing(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    async def body(store: Store) -> None:
        sync_store.installation.check()
        put_old(settings)
        redis_server.client.flushall()
        await create(store)
        refused(settings, sync_store, "in Redis .* is none, that in the object store .* [0-9a-z]{26};")

    with_store(settings, body)


def test_objects_without_the_id_that_redis_has_are_kept(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    redis_server.client.set(keys.INSTALLATION, "mine")
    put_old(settings)
    refused(settings, sync_store, "in Redis .* is mine, that in the object store .* none;")


@pytest.mark.parametrize("others", [["another"], ["another", "mine"]])
def test_the_objects_of_another_installation_are_kept(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, others: list[str]
) -> None:
    redis_server.client.set(keys.INSTALLATION, "mine")
    for other in others:
        Objects.open(settings).put_installation(other)
    put_old(settings)
    refused(settings, sync_store, f"in Redis .* is mine, that in the object store .* {', '.join(others)};")


def test_an_id_that_did_not_get_into_the_object_store_is_forgotten(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: Objects, id: str) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "put_installation", killed)
        with pytest.raises(SystemExit):
            sync_store.installation.check()
    assert 0 < redis_server.client.ttl(keys.INSTALLATION) <= 60


def test_a_worker_says_at_its_start_why_nothing_is_removed(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    put_old(settings)
    thread = Sweep(settings)
    with caplog.at_level(logging.WARNING):
        thread.start()
        until(lambda: "Redis names none of the objects" in caplog.text, "the warning is logged")
    thread.stop()
