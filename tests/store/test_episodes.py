"""The data of an episode in Redis, from its creation to its end."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.settings import Settings
from app.store import keys
from app.store.clients import Store, SyncStore
from app.store.errors import Gone, NotFound, NotReady, QueueFull, StoreFull
from app.store.records import EpisodeRecord, support_to_bytes
from app.telemetry import logs
from lamanas_core.images import UInt8Array
from tests.chaos.waiting import until
from tests.conftest import PrivateRedis, test_settings
from tests.store.observing import Clock, classifier_of, drop_classifier, notices, object_files, waiting
from tests.store.submitting import LARGE, SUPPORT, committed, create
from tests.store.test_async_store import with_store

DAY_MS = 86_400_000
TTL_MS = 5_000_000
# The bytes that an episode of SUPPORT counts.
COUNTED = len(support_to_bytes(SUPPORT))


@pytest.fixture
def settings(redis_server: PrivateRedis) -> Settings:
    return test_settings(redis_server.settings.data_dir, episode_ttl_seconds=TTL_MS // 1000)


def left(server: PrivateRedis, id: str) -> set[str]:
    """The keys whose names contain the id, and the collections that contain it."""
    client: Any = server.client
    found = {name.decode() for name in client.keys(f"*{id}*")}
    for name in client.keys("*"):
        kind = client.type(name)
        if kind == b"zset" and any(id in member.decode() for member in client.zrange(name, 0, -1)):
            found.add(name.decode())
        if kind == b"hash" and client.hexists(name, id):
            found.add(name.decode())
    return found


def test_created_episode_has_all_requested_fields(settings: Settings) -> None:
    async def body(store: Store) -> None:
        with logs.with_fields(request_id="request-7"):
            record, created = await create(store, seed=5, parent="p1")
        assert created
        assert record == EpisodeRecord(
            id=record.id,
            owner="owner1",
            name="test",
            state="queued",
            classes=("a", "b"),
            shots=(2, 2),
            steps=3,
            seed=5,
            model_version="0123456789abcdef",
            model_kind="drawings",
            model_reason="there is only a model for drawings",
            created_at=record.created_at,
            expires_at=record.created_at + TTL_MS / 1000,
            ahead=0,
            parent="p1",
            request_id="request-7",
        )
        images, labels = await store.episodes.support(record.id)
        assert (images.tolist(), labels) == (SUPPORT.tolist(), [0, 0, 1, 1])

    with_store(settings, body)


def test_every_key_of_an_episode_expires_with_it_and_its_tombstone_a_day_later(
    redis_server: PrivateRedis, settings: Settings
) -> None:
    client: Any = redis_server.client

    async def body(store: Store) -> None:
        clock = Clock(client)
        id = (await create(store, idempotency_key="k", request_digest="d"))[0].id
        expiring = (keys.record("episode", id), keys.idempotency("owner1", "k"))
        for name in (*expiring, keys.unfinished("owner1")):
            assert clock.expires_in(TTL_MS, name), name
        assert clock.expires_in(TTL_MS + DAY_MS, keys.tombstone("episode", id))
        assert clock.is_in(TTL_MS, client.zscore(keys.EXPIRY, f"{id} owner1"))
        for field, after in (("created_at", 0), ("queued_at", 0), ("expires_at", TTL_MS)):
            assert clock.is_in(after, client.hget(keys.record("episode", id), field)), field
        assert clock.is_in(0, client.zscore(keys.queued("episode"), id))
        assert client.smembers(keys.unfinished("owner1")) == {id.encode()}

    with_store(settings, body)


def test_command_that_the_client_library_sends_twice_creates_one_episode(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "new_id", lambda: "the-same-id")

    async def body(store: Store) -> None:
        first, again = await create(store), await create(store, name="other")
        assert first == again
        assert (await waiting(store))["adapt"] == 1

    with_store(settings, body)


@pytest.mark.parametrize(
    "wrong",
    [{"support": SUPPORT.astype(np.float32)}, {"support": SUPPORT[0]}, {"labels": [0, 0, 1]}, {"labels": [0] * 5}],
)
def test_support_set_of_another_shape_is_refused(settings: Settings, wrong: dict[str, Any]) -> None:
    async def body(store: Store) -> None:
        with pytest.raises(ValueError, match="uint8"):
            await create(store, **wrong)

    with_store(settings, body)


def test_idempotency_key_of_a_deleted_episode_raises_gone(settings: Settings) -> None:
    async def body(store: Store) -> None:
        id = (await create(store, idempotency_key="k", request_digest="d"))[0].id
        await store.episodes.delete(id)
        with pytest.raises(Gone) as gone:
            await create(store, idempotency_key="k", request_digest="d")
        assert gone.value.owner == "owner1"

    with_store(settings, body)


def test_without_an_idempotency_key_equal_requests_create_two_episodes(settings: Settings) -> None:
    async def body(store: Store) -> None:
        created = [await create(store, request_digest="d") for _ in range(2)]
        assert [created for _, created in created] == [True, True]
        assert created[0][0].id != created[1][0].id

    with_store(settings, body)


@pytest.mark.parametrize(("room_for", "accepted"), [(2, 2), (2 - 1 / COUNTED, 1)])
def test_support_sets_are_accepted_up_to_three_quarters_of_the_limit(
    redis_server: PrivateRedis, room_for: float, accepted: int
) -> None:
    limit = math.ceil(room_for * COUNTED / 0.75)
    settings = redis_server.settings.model_copy(update={"max_object_bytes": limit})

    async def body(store: Store) -> None:
        for _ in range(accepted):
            await create(store)
        with pytest.raises(StoreFull):
            await create(store, idempotency_key="k", request_digest="d")
        assert redis_server.client.hget(keys.STORED_BYTES, keys.SUPPORT_SETS) == str(COUNTED * accepted).encode()
        assert not redis_server.client.exists(keys.idempotency("owner1", "k"))

    with_store(settings, body)


def test_support_set_replaces_the_classifiers_that_were_used_least_recently(
    redis_server: PrivateRedis, settings: Settings
) -> None:
    worker = SyncStore.open(settings)
    client: Any = redis_server.client
    megabyte = 2**20

    async def body(store: Store) -> None:
        ids = [(await create(store))[0].id for _ in range(4)]
        for number, id in enumerate(ids):
            commit(worker, id, b"x" * megabyte)
            client.zadd(keys.CLASSIFIERS_USED, {id: number})
        store.episodes.mark_used(ids[0])
        await store.episodes.write_used()
        limit = 4 * megabyte + 4 * COUNTED + megabyte // 2
        store.episodes._settings = settings.model_copy(update={"max_object_bytes": limit})
        await create(store, support=LARGE, labels=[0] * 64)
        assert [classifier_of(redis_server, id) is not None for id in ids] == [True, False, True, True]
        assert client.zrange(keys.CLASSIFIERS_USED, 0, -1) == [id.encode() for id in (ids[2], ids[3], ids[0])]
        until(lambda: [len(object_files(redis_server, id)) for id in ids] == [2, 1, 2, 2], "the bytes are deleted")
        assert client.hget(keys.STORED_BYTES, keys.CLASSIFIERS) == str(3 * megabyte).encode()

    with_store(settings, body)


@pytest.mark.parametrize(("support", "share"), [(SUPPORT, 0.2), (LARGE, 1.0)])
def test_images_are_stored_compressed_if_that_helps_and_read_as_they_were(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, support: UInt8Array, share: float
) -> None:
    async def body(store: Store) -> None:
        id = (await create(store, support=support, labels=[0] * len(support)))[0].id
        [file] = object_files(redis_server, id)
        assert file.stat().st_size <= share * support.size
        claim = sync_store.claims.claim("episode", id, "one")
        assert claim is not None
        assert np.array_equal((await store.episodes.support(id))[0], support)
        assert np.array_equal(sync_store.claims.support(claim)[0], support)

    with_store(settings, body)


def commit(worker: SyncStore, id: str, artifact: bytes = b"onnx") -> None:
    claim = worker.claims.claim("episode", id, "one")
    assert claim is not None
    assert committed(worker.claims, claim, {"step": 1, "losses": [0.5]}, {"support_accuracy": 1.0}, artifact)


@pytest.mark.parametrize("stage", ["queued", "adapting", "ready"])
def test_deleted_episode_leaves_only_its_tombstone_for_a_day(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, stage: str
) -> None:
    async def body(store: Store) -> None:
        id, other = (await create(store))[0].id, (await create(store))[0].id
        if stage == "adapting":
            assert sync_store.claims.claim("episode", id, "one") is not None
        if stage == "ready":
            commit(sync_store, id)
        clock = Clock(redis_server.client)
        with notices(redis_server) as changed:
            await store.episodes.delete(id)
        assert changed == [f"episode:{id}"]
        assert left(redis_server, id) == {keys.tombstone("episode", id)}
        assert clock.expires_in(DAY_MS, keys.tombstone("episode", id))
        assert redis_server.client.hget(keys.STORED_BYTES, keys.SUPPORT_SETS) == str(COUNTED).encode()
        assert (await store.episodes.get(other)).state == "queued"

    with_store(settings, body)


@pytest.mark.parametrize("stage", ["queued", "adapting", "ready"])
def test_sweep_removes_expired_episodes_and_no_others(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, stage: str
) -> None:
    async def body(store: Store) -> None:
        expired, other = (await create(store))[0].id, (await create(store))[0].id
        if stage == "adapting":
            assert sync_store.claims.claim("episode", expired, "one") is not None
        if stage == "ready":
            commit(sync_store, expired)
        assert sync_store.reconciliation.sweep() == 0
        redis_server.client.zadd(keys.EXPIRY, {f"{expired} owner1": 1})
        with notices(redis_server) as changed:
            assert sync_store.reconciliation.sweep() == 1
        assert changed == [f"episode:{expired}"]
        assert left(redis_server, expired) == {keys.tombstone("episode", expired)}
        assert len(left(redis_server, other)) > 5
        assert sync_store.reconciliation.sweep() == 0

    with_store(settings, body)


def test_sweep_removes_at_most_a_hundred_at_a_time(redis_server: PrivateRedis, sync_store: SyncStore) -> None:
    redis_server.client.zadd(keys.EXPIRY, {f"id{number} owner": number for number in range(1, 102)})
    assert [sync_store.reconciliation.sweep() for _ in range(3)] == [100, 1, 0]


def test_committed_classifier_is_named_and_announced(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    client: Any = redis_server.client

    async def body(store: Store) -> None:
        clock = Clock(client)
        id = (await create(store))[0].id
        with notices(redis_server) as changed:
            commit(sync_store, id)
        assert changed == [f"episode:{id}"] * 2  # claimed, and ready
        assert classifier_of(redis_server, id) == b"onnx"
        assert clock.is_in(0, client.zscore(keys.CLASSIFIERS_USED, id))
        assert client.zcard(keys.leases("episode")) == 0

    with_store(settings, body)


def test_dropped_classifier_is_requested_with_a_wake_up_and_a_notification(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    client: Any = redis_server.client

    async def body(store: Store) -> None:
        id = (await create(store))[0].id
        commit(sync_store, id)
        drop_classifier(client, id)
        client.delete(keys.broker_queue("episode"))
        client.delete(keys.unfinished("owner1"))
        clock = Clock(client)
        with notices(redis_server) as changed, pytest.raises(NotReady):
            await store.episodes.artifact(id)
        assert changed == [f"episode:{id}"]
        assert client.llen(keys.broker_queue("episode")) == 1
        assert clock.is_in(0, client.zscore(keys.queued("episode"), id))
        assert clock.is_in(0, client.hget(keys.record("episode", id), "queued_at"))
        assert client.smembers(keys.unfinished("owner1")) == {id.encode()}
        assert client.pttl(keys.unfinished("owner1")) <= TTL_MS

    with_store(settings, body)


def test_adapting_again_does_not_shorten_the_count_of_unfinished_episodes(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    client: Any = redis_server.client

    async def body(store: Store) -> None:
        id = (await create(store))[0].id
        commit(sync_store, id)
        drop_classifier(client, id)
        client.pexpire(keys.unfinished("owner1"), 2 * TTL_MS)
        with pytest.raises(NotReady):
            await store.episodes.artifact(id)
        assert client.pttl(keys.unfinished("owner1")) > 1.5 * TTL_MS

    with_store(settings, body)


@pytest.mark.parametrize("state", ["queued", "failed"])
def test_request_for_a_missing_classifier_does_not_enqueue_the_episode(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, state: str
) -> None:
    async def body(store: Store) -> None:
        id = (await create(store))[0].id
        if state == "failed":
            claim = sync_store.claims.claim("episode", id, "one")
            assert claim is not None
            sync_store.claims.fail(claim, "no")
        queued = redis_server.client.zscore(keys.queued("episode"), id)
        before = await store.episodes.get(id)
        with notices(redis_server) as changed, pytest.raises(NotReady, match=f"episode {id} is {state}"):
            await store.episodes.artifact(id)
        assert (changed, await store.episodes.get(id)) == ([], before)
        assert redis_server.client.zscore(keys.queued("episode"), id) == queued

    with_store(settings, body)


def test_owner_may_have_unfinished_episodes_up_to_the_limit(redis_server: PrivateRedis) -> None:
    settings = test_settings(redis_server.settings.data_dir, max_unfinished=2)
    worker = SyncStore.open(settings)

    async def body(store: Store) -> None:
        ids = [(await create(store))[0].id for _ in range(2)]
        for _ in range(2):
            with pytest.raises(QueueFull, match="too many of your episodes") as refused:
                await create(store)
            assert refused.value.own
            claim = worker.claims.claim("episode", ids[0], "one")  # it is being adapted the second time
        assert claim is None
        await create(store, owner="owner2")
        await store.episodes.delete(ids[0])
        await create(store)

    with_store(settings, body)


def test_missing_images_raise_gone_with_their_owner(redis_server: PrivateRedis, settings: Settings) -> None:
    async def body(store: Store) -> None:
        id = (await create(store))[0].id
        redis_server.client.hdel(keys.SUPPORT_SETS, id)
        with pytest.raises(Gone) as gone:
            await store.episodes.support(id)
        assert gone.value.owner == "owner1"
        with pytest.raises(NotFound):
            await store.episodes.support("nothing")

    with_store(settings, body)


async def listed(store: Store) -> EpisodeRecord:
    """A new episode as a page of the list contains it, without its place in the queue."""
    return replace((await create(store))[0], ahead=None)


def test_incomplete_page_has_no_cursor_and_others_have_their_last_id(settings: Settings) -> None:
    async def body(store: Store) -> None:
        created = [await listed(store) for _ in range(3)][::-1]
        assert await store.episodes.page("owner1", 4) == (created, None)
        assert await store.episodes.page("owner1", 3) == (created, created[2].id)
        assert await store.episodes.page("owner1", 3, created[2].id) == ([], None)
        assert await store.episodes.page(None, 1, created[0].id) == (created[1:2], created[1].id)
        assert await store.episodes.page("nobody", 3) == ([], None)

    with_store(settings, body)


def test_a_page_skips_expired_episodes_and_looks_at_a_limited_number_of_them(
    settings: Settings, redis_server: PrivateRedis
) -> None:
    async def body(store: Store) -> None:
        created = await listed(store)
        expired = [f"z{number:025}" for number in range(1200)]
        index = keys.index("episode", "owner1")
        redis_server.client.zadd(index, dict.fromkeys(expired[:3], 0))
        assert await store.episodes.page("owner1", 2) == ([created], None)
        redis_server.client.zadd(index, dict.fromkeys(expired, 0))
        found, cursor = await store.episodes.page("owner1", 2)
        assert found == []
        assert cursor in expired[:200]
        assert await store.episodes.page("owner1", 2, cursor) == ([created], None)

    with_store(settings, body)


def test_watch_yields_the_current_record_and_ends_with_a_final_state(settings: Settings, sync_store: SyncStore) -> None:
    async def body(store: Store) -> None:
        id = (await create(store))[0].id
        claim = sync_store.claims.claim("episode", id, "one")
        assert claim is not None
        assert sync_store.claims.fail(claim, "no")
        assert [record.state async for record in store.episodes.watch(id)] == ["failed"]
        with pytest.raises(NotFound):
            [record async for record in store.episodes.watch("nothing")]

    with_store(settings, body)


def test_record_has_defaults_for_missing_fields(settings: Settings) -> None:
    async def body(store: Store) -> None:
        plain = (await create(store, name=None))[0]
        assert plain == replace(plain, name=None, parent=None, request_id=None, attempts=0, error=None, losses=())

    with_store(settings, body)
