"""What is kept has an end: runs, revoked keys, models."""

import time
from typing import Any

import pytest

from app.settings import Settings
from app.store import keys, leftovers
from app.store.clients import Store, SyncStore
from app.store.errors import Conflict, NotFound
from tests.chaos.waiting import until
from tests.conftest import PrivateRedis
from tests.store.submitting import DRAWINGS, create
from tests.store.test_async_store import with_store

LONG_AGO = time.time() - 91 * 86_400


def run_of(server: PrivateRedis, state: str, started_at: float = LONG_AGO, ended_at: float | None = None) -> str:
    """A run with a folder, in this state. Earlier versions did not write down when one ended."""
    client: Any = server.client
    id = keys.first_id(started_at)[:10] + keys.new_id()[10:]
    client.hset(keys.record("training", id), mapping={"spec": "{}", "state": state, "created_at": int(started_at)})
    if ended_at is not None:
        client.hset(keys.record("training", id), "ended_at", int(1000 * ended_at))
    client.zadd(keys.index("training"), {id: 0})
    folder(server, id)
    return id


def folder(server: PrivateRedis, name: str) -> None:
    (server.settings.runs_dir / name).mkdir(parents=True)
    (server.settings.runs_dir / name / "checkpoint").write_bytes(b"")


def test_runs_that_ended_long_ago_are_removed_with_their_folders(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    ended = [run_of(redis_server, state) for state in ("finished", "failed", "cancelled")]
    ended.append(run_of(redis_server, "finished", LONG_AGO - 60, ended_at=LONG_AGO))
    kept = [run_of(redis_server, state) for state in ("queued", "running")]
    kept.append(run_of(redis_server, "finished", time.time() - 89 * 86_400))
    kept.append(run_of(redis_server, "finished", ended_at=time.time() - 89 * 86_400))
    orphan, new = run_of(redis_server, "finished"), keys.new_id()
    redis_server.client.delete(keys.record("training", orphan))
    redis_server.client.zrem(keys.index("training"), orphan)
    for name in (new, "mine"):
        folder(redis_server, name)
    expected = {*(f"run {id}" for id in ended), f"folder {settings.runs_dir / orphan}"}
    assert set(leftovers.remove(settings, sync_store, dry_run=True)) == expected
    assert len(list(settings.runs_dir.iterdir())) == 11
    assert set(leftovers.remove(settings, sync_store)) == expected
    assert {path.name for path in settings.runs_dir.iterdir()} == {*kept, new, "mine"}
    left: Any = redis_server.client.zrange(keys.index("training"), 0, -1)
    assert {id.decode() for id in left} == set(kept)
    assert not any(redis_server.client.exists(keys.record("training", id)) for id in ended)
    assert list(leftovers.remove(settings, sync_store)) == []


def test_a_run_that_was_resumed_meanwhile_is_kept(redis_server: PrivateRedis, sync_store: SyncStore) -> None:
    id = run_of(redis_server, "queued")
    assert not sync_store.trainings.remove(id)
    assert sync_store.trainings.exists(id)


def test_keys_that_were_revoked_long_ago_are_forgotten(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    created = {name: sync_store.api_keys.create(name, ["predict"]) for name in ("old", "new", "valid")}
    # Its token may be in a file of another host, whose app would make it a new key if this one were forgotten.
    created["admin"] = sync_store.api_keys.create("admin", ["admin", "predict"])
    for name in ("old", "new", "admin"):
        sync_store.api_keys.revoke(created[name][0].id)
    for name in ("old", "admin"):
        redis_server.client.hset(keys.api_key(created[name][0].id), "revoked_at", int(1000 * LONG_AGO))
    assert list(leftovers.remove(settings, sync_store, dry_run=True)) == [f"key {created['old'][0].id}"]
    assert len(sync_store.api_keys.all()) == 4
    assert list(leftovers.remove(settings, sync_store)) == [f"key {created['old'][0].id}"]
    assert {key.name for key in sync_store.api_keys.all()} == {"new", "admin", "valid"}
    assert not redis_server.client.exists(keys.api_key_by_token(keys.token_digest(created["old"][1])))

    async def body(store: Store) -> None:
        assert await store.api_keys.find(created["old"][1]) is None
        assert await store.api_keys.find(created["valid"][1]) is not None

    with_store(settings, body)


def test_a_key_that_is_removed_by_two_sweeps_at_once_is_forgotten(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    key = sync_store.api_keys.create("old", ["predict"])[0]
    sync_store.api_keys.revoke(key.id)
    redis_server.client.hset(keys.api_key(key.id), "revoked_at", int(1000 * LONG_AGO))
    steps = [leftovers.remove(settings, sync_store) for _ in range(2)]
    assert [next(step) for step in steps] == [f"key {key.id}"] * 2
    for step in steps:
        assert list(step) == []
    assert sync_store.api_keys.all() == []


def test_a_key_whose_record_is_gone_is_not_listed(redis_server: PrivateRedis, sync_store: SyncStore) -> None:
    key = sync_store.api_keys.create("gone", ["predict"])[0]
    redis_server.client.delete(keys.api_key(key.id))
    assert sync_store.api_keys.all() == []


def test_a_model_is_removed_once_it_is_not_active_and_no_episode_uses_it(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    async def body(store: Store) -> None:
        for version in ("active", "other"):
            sync_store.models.register(version, b"weights", DRAWINGS)
        await create(store, model_version="other")
        with pytest.raises(Conflict, match="active is the active version"):
            sync_store.models.remove("active")
        with pytest.raises(Conflict, match="episodes use other, the last of them until 2"):
            sync_store.models.remove("other")
        redis_server.client.zadd(keys.MODELS_USED, {"other": 1})  # simulates that the episode has expired
        sync_store.models.remove("other")
        assert [model.version for model in await store.models.all()] == ["active"]
        assert not redis_server.client.exists(keys.model("other"), keys.MODELS_USED)
        for version in ("other", "nothing"):
            with pytest.raises(NotFound):
                sync_store.models.remove(version)

    with_store(settings, body)


def test_an_episode_whose_model_is_removed_while_its_images_are_stored_is_refused(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: Store) -> None:
        for version in ("active", "other"):
            sync_store.models.register(version, b"weights", DRAWINGS)
        put = store.episodes._objects.put_async

        async def removed_then(name: str, data: bytes) -> None:
            sync_store.models.remove("other")
            await put(name, data)

        monkeypatch.setattr(store.episodes._objects, "put_async", removed_then)
        with pytest.raises(NotFound, match="there is no model version other"):
            await create(store, model_version="other")
        assert redis_server.client.zcard(keys.index("episode")) == 0
        until(lambda: list(settings.objects_dir.glob("*/*")) == [], "what was stored is deleted")

    with_store(settings, body)


def test_one_worker_removes_leftovers_in_an_hour(redis_server: PrivateRedis, sync_store: SyncStore) -> None:
    assert [sync_store.reconciliation.take_turn() for _ in range(2)] == [True, False]
    assert 0 < redis_server.client.ttl(keys.LEFTOVERS_REMOVED) <= 3600
