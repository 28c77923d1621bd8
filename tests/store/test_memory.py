"""The object store and Redis' memory are bounded: classifiers that were used least recently are dropped first, and
adapted again on request; images have a fixed share."""

from contextlib import suppress
from pathlib import Path

import pytest

from app.settings import Settings
from app.store import keys
from app.store.clients import Store, SyncStore
from app.store.errors import NotReady, QueueFull, StoreFull
from tests.chaos.waiting import until
from tests.conftest import PrivateRedis, test_settings
from tests.store.observing import classifier_of, drop_classifier, waiting
from tests.store.submitting import LARGE, committed, create
from tests.store.test_async_store import with_store

MB = 2**20
BOUND = 16 * MB
ARTIFACT = b"a" * MB


@pytest.fixture
def bounded(redis_server: PrivateRedis) -> Settings:
    return test_settings(redis_server.settings.data_dir, max_object_bytes=BOUND, max_queue=100)


def adapt(worker: SyncStore, id: str, artifact: bytes = ARTIFACT) -> None:
    claim = worker.claims.claim("episode", id, "one")
    assert claim is not None
    assert committed(worker.claims, claim, {"step": 1, "losses": [0.5]}, {"support_accuracy": 1.0}, artifact)


def bytes_in(folder: Path) -> int:
    sizes = 0
    for path in folder.glob("*/*"):
        with suppress(FileNotFoundError):  # deleted meanwhile
            sizes += path.stat().st_size
    return sizes


def stored(server: PrivateRedis) -> int:
    """The bytes in the object store: as counted, and as they are."""
    counted = sum(int(bytes) for bytes in server.client.hvals(keys.STORED_BYTES))
    until(lambda: counted == bytes_in(server.settings.objects_dir), "what was dropped is deleted")
    return counted


def test_oldest_classifiers_are_dropped_for_new_ones(redis_server: PrivateRedis, bounded: Settings) -> None:
    async def body(store: Store) -> None:
        worker = SyncStore.open(bounded)
        ids = []
        for _ in range(30):
            ids.append((await create(store))[0].id)
            adapt(worker, ids[-1])
            assert stored(redis_server) <= BOUND
        kept = [classifier_of(redis_server, id) is not None for id in ids]
        assert kept == sorted(kept)  # the oldest ones were dropped
        assert sum(kept) == 15
        assert {(await store.episodes.get(id)).state for id in ids} == {"ready"}

    with_store(bounded, body)


def test_episodes_are_refused_once_redis_uses_all_its_memory(redis_server: PrivateRedis) -> None:
    settings = redis_server.settings.model_copy(update={"max_store_bytes": 1000})

    async def body(store: Store) -> None:
        with pytest.raises(StoreFull):
            await create(store)
        assert stored(redis_server) == 0

    with_store(settings, body)


def test_dropped_classifier_is_adapted_again_at_the_next_request(redis_server: PrivateRedis, bounded: Settings) -> None:
    async def body(store: Store) -> None:
        worker = SyncStore.open(bounded)
        id = (await create(store))[0].id
        adapt(worker, id, b"the classifier")
        drop_classifier(redis_server.client, id)
        for _ in range(2):  # a second request changes nothing
            with pytest.raises(NotReady, match="queued"):
                await store.episodes.artifact(id)
        again = await store.episodes.get(id)
        assert (again.state, again.support_accuracy, again.attempts) == ("queued", 1.0, 0)
        assert (await waiting(store))["adapt"] == 1
        adapt(worker, id, b"the classifier")
        assert await store.episodes.artifact(id) == b"the classifier"
        assert (await store.episodes.get(id)).state == "ready"

    with_store(bounded, body)


def test_dropped_classifier_is_not_adapted_again_while_the_queue_is_full(redis_server: PrivateRedis) -> None:
    settings = test_settings(redis_server.settings.data_dir, max_queue=1)

    async def body(store: Store) -> None:
        worker = SyncStore.open(settings)
        id = (await create(store))[0].id
        adapt(worker, id)
        drop_classifier(redis_server.client, id)
        await create(store)
        with pytest.raises(QueueFull):
            await store.episodes.artifact(id)
        assert (await store.episodes.get(id)).state == "ready"

    with_store(settings, body)


def test_dropped_classifier_is_not_adapted_again_for_an_owner_at_the_limit(redis_server: PrivateRedis) -> None:
    settings = test_settings(redis_server.settings.data_dir, max_unfinished=2)

    async def body(store: Store) -> None:
        worker = SyncStore.open(settings)
        dropped = [(await create(store))[0].id for _ in range(2)]
        for id in dropped:
            adapt(worker, id)
        dropped.append((await create(store))[0].id)
        adapt(worker, dropped[-1])
        for id in dropped:
            drop_classifier(redis_server.client, id)
        for id in dropped[:2]:
            with pytest.raises(NotReady):
                await store.episodes.artifact(id)
        for ask in (lambda: store.episodes.artifact(dropped[2]), lambda: create(store)):
            with pytest.raises(QueueFull) as refused:
                await ask()
            assert refused.value.own
        await create(store, owner="owner2")
        adapt(worker, dropped[0])
        with pytest.raises(NotReady, match="queued"):
            await store.episodes.artifact(dropped[2])

    with_store(settings, body)


def test_count_of_unfinished_episodes_lasts_as_long_as_they_do(redis_server: PrivateRedis, bounded: Settings) -> None:
    async def body(store: Store) -> None:
        id = (await create(store))[0].id
        adapt(SyncStore.open(bounded), id)
        drop_classifier(redis_server.client, id)
        redis_server.client.delete(keys.unfinished("owner1"))  # simulates that the others have expired
        with pytest.raises(NotReady):
            await store.episodes.artifact(id)
        assert redis_server.client.smembers(keys.unfinished("owner1")) == {id.encode()}
        counted = redis_server.client.pttl(keys.unfinished("owner1"))
        assert counted + 1000 > redis_server.client.pttl(keys.record("episode", id)) > 0

    with_store(bounded, body)


def test_images_are_refused_beyond_their_share_until_others_are_deleted(
    redis_server: PrivateRedis, bounded: Settings
) -> None:
    async def body(store: Store) -> None:
        async def another() -> str:
            return (await create(store, support=LARGE, shots=[32, 32], labels=[0] * 32 + [1] * 32))[0].id

        ids = [await another() for _ in range(12)]
        with pytest.raises(StoreFull):
            await another()
        assert stored(redis_server) < BOUND  # nothing of the one that was refused
        await store.episodes.delete(ids[0])
        await another()

    with_store(bounded, body)


def test_deleted_and_expired_episodes_are_not_counted(redis_server: PrivateRedis) -> None:
    settings = redis_server.settings

    async def body(store: Store) -> None:
        worker = SyncStore.open(settings)
        deleted, expired = (await create(store))[0].id, (await create(store))[0].id
        for id in (deleted, expired):
            adapt(worker, id)
        await store.episodes.delete(deleted)
        redis_server.client.zadd(keys.EXPIRY, {f"{expired} owner1": 1}, xx=True)
        assert worker.reconciliation.sweep() == 1
        assert stored(redis_server) == 0
        assert redis_server.client.zcard(keys.CLASSIFIERS_USED) == 0

    with_store(settings, body)


def test_wake_ups_do_not_accumulate_without_workers(redis_server: PrivateRedis, sync_store: SyncStore) -> None:
    async def body(store: Store) -> None:
        id = (await create(store))[0].id
        redis_server.client.zadd(keys.queued("episode"), {id: 1})  # its wake-up was sent long ago
        assert sync_store.reconciliation.due("episode") == []
        redis_server.client.delete(keys.broker_queue("episode"))
        assert sync_store.reconciliation.due("episode") == [id]

    with_store(redis_server.settings, body)
