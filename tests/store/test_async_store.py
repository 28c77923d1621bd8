"""The app's interface to the store, with a real Redis."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError

from app.settings import Settings
from app.store import keys, lookup_cache
from app.store.claims import Claim
from app.store.clients import Store, SyncStore
from app.store.errors import UNAVAILABLE, Gone, IdempotencyConflict, NotFound, NotReady, NotSavedError, QueueFull
from app.store.notifications import Notifications
from lamanas_core.image_spec import ImageKind
from tests.chaos.waiting import until
from tests.conftest import PrivateRedis, test_settings
from tests.store.observing import waiting
from tests.store.submitting import DRAWINGS, PHOTOS, committed, create


def with_store(settings: Settings, body: Callable[[Store], Awaitable[object]]) -> None:
    async def run() -> None:
        store = await Store.open(settings)
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(run())


def test_what_a_later_release_has_added_to_a_record_is_left_out(redis_server: PrivateRedis, settings: Settings) -> None:
    """As after a roll back."""

    async def body(store: Store) -> None:
        episode = (await create(store))[0]
        run = await store.trainings.create(owner="owner1", dataset="shapes", options={})
        for record in (keys.record("episode", episode.id), keys.record("training", run.id)):
            for name in ("spec", "progress"):
                fields = json.loads(redis_server.client.hget(record, name) or "{}")
                redis_server.client.hset(record, name, json.dumps(fields | {f"later_{name}": 1}))
        assert await store.episodes.get(episode.id) == episode
        assert await store.trainings.get(run.id) == run

    with_store(settings, body)


def test_cached_keys_and_episodes_are_dropped_at_notifications(
    redis_server: PrivateRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup_cache, "MAX_AGE_S", 3600.0)
    operator = SyncStore.open(settings)
    key, token = operator.api_keys.create("test", ["predict"])

    async def noticed(store: Store, what: str, act: Callable[[], Any]) -> None:
        with store.changes.waiting(what) as event:
            event.clear()
            await asyncio.to_thread(act)
            async with asyncio.timeout(60):
                await event.wait()

    async def body(store: Store) -> None:
        await noticed(store, "the subscription", lambda: None)
        episode = (await create(store))[0]
        await store.api_keys.find(token)
        found, state = await store.api_keys.find_with_state(token, episode.id)
        assert (found is not None, state, await store.episodes.state(episode.id)) == (True, "queued", "queued")
        record = keys.record("episode", episode.id)
        redis_server.client.hset(record, "state", "other")  # without a notification
        assert await store.episodes.state(episode.id) == "queued"
        await noticed(store, "the subscription", lambda: redis_server.client.client_kill_filter(_type="pubsub"))
        assert await store.episodes.state(episode.id) == "other"
        await noticed(store, f"key:{key.id}", lambda: operator.api_keys.revoke(key.id))
        assert await store.api_keys.find(token) is None
        await noticed(
            store, f"episode:{episode.id}", lambda: with_store(settings, lambda o: o.episodes.delete(episode.id))
        )
        assert await store.episodes.state(episode.id) is None

    with_store(settings, body)


def test_subscription_is_renewed_after_redis_refused_it(redis_server: PrivateRedis, settings: Settings) -> None:
    async def body(store: Store) -> None:
        events: asyncio.Queue[str | None] = asyncio.Queue()
        changes = Notifications(store._redis, events.put_nowait)
        changes.start()
        try:
            async with asyncio.timeout(60):
                await events.get()  # it is subscribed
                redis_server.client.acl_setuser("default", enabled=True, reset_channels=True)
                redis_server.client.client_kill_filter(_type="pubsub")
                for _ in range(2):
                    await events.get()
                redis_server.client.acl_setuser("default", enabled=True, channels=["*"])
                while not redis_server.client.publish(keys.CHANGES, "episode:x"):
                    await events.get()
                while await events.get() != "episode:x":
                    pass
        finally:
            await changes.stop()

    with_store(settings, body)


@pytest.mark.parametrize(
    ("refuse", "refusal"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), OutOfMemoryError),
        (("REPLICAOF", "127.0.0.1", "1"), ReadOnlyError),
    ],
)
def test_redis_that_accepts_no_writes_is_reported_as_unavailable(
    refuse: tuple[str, ...], refusal: type[Exception], redis_server: PrivateRedis, settings: Settings
) -> None:
    async def body(store: Store) -> None:
        redis: Any = redis_server.client
        await create(store)
        redis.execute_command(*refuse)
        with pytest.raises(refusal) as refused:
            await create(store)
        assert isinstance(refused.value, UNAVAILABLE)

    with_store(settings, body)


def test_redis_that_cannot_save_to_disk_is_reported_as_unavailable(
    redis_server: PrivateRedis, settings: Settings, tmp_path: Path
) -> None:
    async def body(store: Store) -> None:
        await create(store)
        (tmp_path / "lost").mkdir()
        redis: Any = redis_server.client
        redis.config_set("dir", str(tmp_path / "lost"))
        redis.config_set("save", "1 1")
        (tmp_path / "lost").rmdir()
        redis.bgsave()
        until(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", "the disk is full")
        for refused in (store.ping(), create(store)):
            with pytest.raises(NotSavedError) as met:
                await refused
            assert isinstance(met.value, UNAVAILABLE)

    with_store(settings, body)
    worker = SyncStore.open(settings)
    for call in (worker.ping, lambda: worker.workers.drain("one", 60)):
        with pytest.raises(NotSavedError):
            call()
    worker.close()


def test_submitted_episode_is_read_back_as_requested(settings: Settings) -> None:
    async def body(store: Store) -> None:
        record, created = await create(store)
        assert created
        assert (record.state, record.classes, record.shots, record.steps) == ("queued", ("a", "b"), (2, 2), 3)
        assert record.expires_at - record.created_at == settings.episode_ttl_seconds
        assert await waiting(store) == {"adapt": 1, "train": 0}
        with pytest.raises(NotReady, match="queued"):
            await store.episodes.artifact(record.id)

    with_store(settings, body)


def test_submission_sends_only_the_id_to_a_worker(redis_server: PrivateRedis, settings: Settings) -> None:
    async def body(store: Store) -> None:
        await create(store)

    with_store(settings, body)
    (message,) = redis_server.client.lrange(keys.broker_queue("episode"), 0, -1)
    assert len(message) < 2000


def test_same_idempotency_key_returns_the_first_episode_and_refuses_another_request(settings: Settings) -> None:
    async def body(store: Store) -> None:
        first, created = await create(store, idempotency_key="k", request_digest="d1")
        again, created_again = await create(store, idempotency_key="k", request_digest="d1")
        assert (created, created_again) == (True, False)
        assert again.id == first.id
        with pytest.raises(IdempotencyConflict):
            await create(store, idempotency_key="k", request_digest="d2")
        other, created = await create(store, owner="owner2", idempotency_key="k", request_digest="d2")
        assert created
        assert other.id != first.id

    with_store(settings, body)


def test_concurrent_submissions_with_one_idempotency_key_create_one_episode(settings: Settings) -> None:
    async def body(store: Store) -> None:
        results = await asyncio.gather(*(create(store, idempotency_key="k", request_digest="d") for _ in range(20)))
        assert len({record.id for record, _ in results}) == 1
        assert sum(created for _, created in results) == 1

    with_store(settings, body)


def test_full_queue_refuses_and_stores_nothing(redis_server: PrivateRedis) -> None:
    async def body(store: Store) -> None:
        await create(store)
        await create(store)
        before = await redis_client_keys(redis_server)
        with pytest.raises(QueueFull) as refused:
            await create(store, idempotency_key="k", request_digest="d")
        assert refused.value.retry_after >= 1
        assert await redis_client_keys(redis_server) == before

    with_store(test_settings(redis_server.settings.data_dir, max_queue=2), body)


async def watch(store: Store, id: str, then: Callable[[], Awaitable[object]] | None = None) -> None:
    """Watches until the end; calls ``then`` for each record."""
    async for _ in store.episodes.watch(id):
        if then is not None:
            await then()


async def redis_client_keys(server: PrivateRedis) -> set[Any]:
    return set(await asyncio.to_thread(server.client.keys, "*"))


def test_deleted_episode_is_distinguished_from_an_unknown_one(settings: Settings) -> None:
    async def body(store: Store) -> None:
        record, _ = await create(store)
        await store.episodes.delete(record.id)
        with pytest.raises(Gone):
            await store.episodes.get(record.id)
        with pytest.raises(Gone):
            await store.episodes.artifact(record.id)
        with pytest.raises(NotFound):
            await store.episodes.get(keys.new_id())
        assert await store.episodes.page(None, 10) == ([], None)
        assert await waiting(store) == {"adapt": 0, "train": 0}

    with_store(settings, body)


def test_expired_episode_is_gone_and_leaves_only_its_tombstone(redis_server: PrivateRedis) -> None:
    settings = test_settings(redis_server.settings.data_dir, episode_ttl_seconds=1)

    async def body(store: Store) -> None:
        record, _ = await create(store)
        sweeper = SyncStore.open(settings)
        # The watcher also polls, so that it notices the expiry, which is not announced.
        with pytest.raises(Gone):
            await watch(store, record.id)
        sweeper.reconciliation.sweep()
        assert await store.episodes.page("owner1", 10) == ([], None)
        left = {name.decode() for name in await redis_client_keys(redis_server) if record.id in name.decode()}
        assert left == {keys.tombstone("episode", record.id)}

    with_store(settings, body)


def test_pages_contain_all_episodes_of_an_owner_newest_first(settings: Settings) -> None:
    async def body(store: Store) -> None:
        ids = [(await create(store))[0].id for _ in range(7)]
        await create(store, owner="owner2")
        await store.episodes.delete(ids[3])
        seen: list[str] = []
        cursor = None
        while True:
            page, cursor = await store.episodes.page("owner1", 2, cursor)
            seen += [record.id for record in page]
            if cursor is None:
                break
        del ids[3]
        assert sorted(seen, reverse=True) == seen
        assert set(seen) == set(ids)
        assert len((await store.episodes.page(None, 100))[0]) == 7

    with_store(settings, body)


def test_watcher_sees_progress_and_the_end_across_a_restart_of_redis(redis_server: PrivateRedis) -> None:
    settings = redis_server.settings

    async def body(store: Store) -> None:
        record, _ = await create(store)
        worker = SyncStore.open(settings)
        seen: list[tuple[str, int]] = []
        claim: Claim | None = None
        async for seen_now in store.episodes.watch(record.id):
            seen.append((seen_now.state, seen_now.step))
            if len(seen) == 1:
                claim = worker.claims.claim("episode", record.id, "one")
            elif len(seen) == 2:
                assert claim is not None
                worker.claims.report_progress(claim, {"step": 1, "losses": [2.0]})
            elif len(seen) == 3:
                await asyncio.to_thread(redis_server.restart)
                worker = SyncStore.open(settings)
                assert claim is not None
                committed(worker.claims, claim, {"step": 2, "losses": [2.0, 1.0]}, {}, b"onnx")
        assert seen == [("queued", 0), ("adapting", 0), ("adapting", 1), ("ready", 2)]
        assert await store.episodes.artifact(record.id) == b"onnx"

    with_store(settings, body)


def test_deleting_ends_a_watch(settings: Settings) -> None:
    async def body(store: Store) -> None:
        record, _ = await create(store)
        with pytest.raises(Gone):
            await watch(store, record.id, lambda: store.episodes.delete(record.id))

    with_store(settings, body)


def test_first_model_of_a_kind_becomes_its_active_one_and_others_must_be_activated(
    settings: Settings, sync_store: SyncStore
) -> None:
    async def body(store: Store) -> None:
        assert await store.models.active_versions() == {}
        for version, card in (("v1", DRAWINGS), ("v1", DRAWINGS), ("v2", DRAWINGS), ("p1", PHOTOS), ("p2", PHOTOS)):
            sync_store.models.register(version, b"1", card)
        shown = [(model.version, model.kind, model.active) for model in await store.models.all()]
        assert sorted(shown) == [
            ("p1", "photos", True),
            ("p2", "photos", False),
            ("v1", "drawings", True),
            ("v2", "drawings", False),
        ]
        activated = await store.models.activate("p2")
        assert (activated.kind, activated.active) == ("photos", True)
        assert await store.models.active_versions() == {"drawings": "v1", "photos": "p2"}
        assert not (await store.models.get("p1")).active
        with pytest.raises(NotFound):
            await store.models.activate("v3")

    with_store(settings, body)


@pytest.mark.parametrize(("former", "kept"), [(DRAWINGS, "drawings"), (PHOTOS, "photos")])
def test_active_model_of_an_installation_without_kinds_remains_active(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, former: dict[str, Any], kept: ImageKind
) -> None:
    sync_store.models.register("own", b"1", former)
    redis_server.client.delete(keys.ACTIVE_MODELS)
    redis_server.client.set(keys.FORMER_ACTIVE_MODEL, "own")
    sync_store.models.register("shipped-1", b"1", DRAWINGS)
    sync_store.models.register("shipped-2", b"1", PHOTOS)
    shipped: dict[ImageKind, str] = {"drawings": "shipped-1", "photos": "shipped-2"}
    assert sync_store.models.active_versions() == shipped | {kept: "own"}
    with_store(settings, lambda store: store.models.activate(shipped[kept]))
    sync_store.models.register("shipped-1", b"1", DRAWINGS)
    assert sync_store.models.active_versions() == shipped


def test_key_is_found_by_its_token_until_it_is_revoked(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    async def body(store: Store) -> None:
        record, token = sync_store.api_keys.create("ci", {"predict"})
        assert await store.api_keys.find(token) == record
        assert sync_store.api_keys.create("again", {"predict"}, token)[0] == record
        assert await store.api_keys.find(token + "x") is None
        assert token not in str(await redis_client_keys(redis_server))
        sync_store.api_keys.revoke(record.id)
        assert await store.api_keys.find(token) is None

    with_store(settings, body)


def test_pages_are_filled_past_records_that_have_expired(redis_server: PrivateRedis, settings: Settings) -> None:
    """The index contains them until the next sweep."""

    async def body(store: Store) -> None:
        made = sorted([(await create(store))[0].id for _ in range(7)])
        for id in made[2:5]:
            redis_server.client.delete(keys.record("episode", id))
        page, cursor = await store.episodes.page("owner1", 3)
        assert [record.id for record in page] == [made[6], made[5], made[1]]
        assert [record.id for record in (await store.episodes.page("owner1", 3, cursor))[0]] == [made[0]]

    with_store(settings, body)


def test_all_keys_are_listed_oldest_first_with_the_revoked_ones(settings: Settings, sync_store: SyncStore) -> None:
    created = [sync_store.api_keys.create(f"key {number}", {"predict"})[0].id for number in range(4)]
    sync_store.api_keys.revoke(created[1])
    listed = sync_store.api_keys.all()
    assert {record.id: record.revoked for record in listed} == {id: id == created[1] for id in created}
    times = [record.created_at for record in listed]  # keys of the same millisecond come in any order
    assert times == sorted(times)
