"""API keys, rates, workers, models and errors, with a real Redis."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from app.settings import Rate, Settings
from app.store import api_keys, keys, lookup_cache, measures
from app.store.clients import Store, SyncStore
from app.store.errors import NotFound, NotSavedError, QueueFull, refusals_named
from app.store.records import WorkerRecord
from tests.conftest import PrivateRedis
from tests.store.observing import Clock, notices, waiting
from tests.store.submitting import DRAWINGS, PHOTOS, create
from tests.store.test_async_store import with_store


def test_created_key_is_read_back_as_requested(redis_server: PrivateRedis, sync_store: SyncStore) -> None:
    clock = Clock(redis_server.client)
    first, token = sync_store.api_keys.create("ci", ["predict", "episodes"])
    assert (first.name, first.tenant, first.scopes, first.revoked) == (
        "ci",
        first.id,
        frozenset({"predict", "episodes"}),
        False,
    )
    assert clock.is_in(0, first.created_at * 1000)
    second, _ = sync_store.api_keys.create("other", ["admin"], tenant="t")
    assert second.tenant == "t"
    assert sync_store.api_keys.all() == [first, second]
    assert token.startswith("lam_")
    with notices(redis_server) as changed:
        assert sync_store.api_keys.revoke(first.id).revoked
    assert changed == [f"key:{first.id}"]
    with pytest.raises(NotFound):
        sync_store.api_keys.revoke("nothing")


@pytest.mark.parametrize("scopes", [[], ["predict", "root"]])
def test_unknown_scopes_are_refused(sync_store: SyncStore, scopes: list[Any]) -> None:
    with pytest.raises(ValueError, match="scopes must be some of admin, episodes, metrics, predict"):
        sync_store.api_keys.create("ci", scopes)


def test_key_with_another_digest_is_not_found_by_the_token(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, token = sync_store.api_keys.create("ci", ["predict"])
    monkeypatch.setattr(lookup_cache, "MAX_AGE_S", -1.0)

    async def body(store: Store) -> None:
        assert await store.api_keys.find(token) == key
        redis_server.client.hset(keys.api_key(key.id), "digest", "0" * 64)
        assert await store.api_keys.find(token) is None  # by the lookup
        store.api_keys._cached.clear()
        assert await store.api_keys.find(token) is None  # by its record

    with_store(settings, body)


def test_least_recently_used_keys_are_dropped_from_the_cache(
    settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "MAX_CACHED_KEYS", 2)
    created = [sync_store.api_keys.create(str(number), ["predict"]) for number in range(3)]

    async def body(store: Store) -> None:
        for number in (0, 1, 0, 2):
            assert await store.api_keys.find(created[number][1]) == created[number][0]
        assert [key.name for key in store.api_keys._cached.values()] == ["0", "2"]

    with_store(settings, body)


def test_rate_allows_a_burst_and_then_as_many_as_are_refilled(redis_server: PrivateRedis, settings: Settings) -> None:
    client: Any = redis_server.client
    rate = Rate(requests=3, seconds=300)

    async def body(store: Store) -> None:
        clock = Clock(client)
        assert [await store.api_keys.take("k", rate) for _ in range(3)] == [0, 0, 0]
        assert clock.expires_in(300_000, keys.bucket("k"))
        assert 90 < await store.api_keys.take("k", rate) <= 100
        assert await store.api_keys.take("other", rate) == 0
        client.hincrby(keys.bucket("k"), "at", -100_000)  # simulates that 100 s have passed
        assert await store.api_keys.take("k", rate) == 0
        assert 90 < await store.api_keys.take("k", rate) <= 100
        once = Rate(requests=1, seconds=300)
        assert [await store.api_keys.take("once", once) > 0 for _ in range(2)] == [False, True]
        client.hincrby(keys.bucket("k"), "at", -10_000_000)
        assert [await store.api_keys.take("k", rate) > 0 for _ in range(4)] == [False, False, False, True]

    with_store(settings, body)


def test_workers_are_listed_while_their_heartbeat_is_fresh(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    client: Any = redis_server.client
    record = WorkerRecord.now("adapt", "host-1", "cpu")

    async def body(store: Store) -> None:
        assert await alive(store) == {"adapt": (), "train": ()}
        clock = Clock(client)
        sync_store.workers.heartbeat(record)
        assert clock.is_in(0, client.zscore(keys.workers("adapt"), "host-1"))
        assert await alive(store) == {"adapt": (record,), "train": ()}
        others = [WorkerRecord.now("adapt", name, "cpu") for name in ("host-2", "other-1", "host-2-1")]
        for other in others:
            sync_store.workers.heartbeat(other)
        assert [sync_store.workers.count_on_host(queue, "host") for queue in ("adapt", "train")] == [2, 0]
        client.zincrby(keys.workers("adapt"), -3000, "other-1")
        state = (await store.workers.queues())["adapt"]
        assert state.heartbeat_age is not None
        assert 3 <= state.heartbeat_age < 5  # the age of the oldest heartbeat
        assert set(state.workers) == {record, *others}
        assert (await store.workers.queues())["train"].heartbeat_age is None
        client.zincrby(keys.workers("adapt"), -5001, "host-1")
        for name in ("other-1", "host-2-1"):
            client.zincrby(keys.workers("adapt"), -5001, name)
        assert sync_store.workers.count_on_host("adapt", "host") == 1
        assert await alive(store) == {"adapt": (others[0],), "train": ()}
        sync_store.workers.heartbeat(others[0])  # forgets the others
        assert client.zrange(keys.workers("adapt"), 0, -1) == client.hkeys(keys.WORKER_RECORDS) == [b"host-2"]
        sync_store.workers.remove("adapt", "host-2")
        assert await alive(store) == {"adapt": (), "train": ()}
        sync_store.workers.drain("host-2", 60)
        assert clock.expires_in(60_000, keys.draining("host-2"))

    with_store(settings, body)


async def alive(store: Store) -> dict[str, tuple[WorkerRecord, ...]]:
    return {queue: state.workers for queue, state in (await store.workers.queues()).items()}


def test_figures_contain_queues_running_jobs_and_measurements(settings: Settings, sync_store: SyncStore) -> None:
    async def body(store: Store) -> None:
        assert (await store.workers.figures()).training is None
        ids = [(await create(store))[0].id for _ in range(3)]
        assert sync_store.claims.claim("episode", ids[0], "one") is not None
        run = await store.trainings.create(owner="o", dataset="shapes", options={})
        assert await waiting(store) == {"adapt": 2, "train": 1}
        assert sync_store.claims.claim("training", run.id, "one") is not None
        assert [state.running for state in (await store.workers.queues()).values()] == [1, 1]
        sync_store.workers.add_measurements({"adapt": [measures.BUCKETS[0], 0.006, 400.0]})
        figures = await store.workers.figures()
        assert figures.training is not None
        assert figures.training.id == run.id
        last = len(measures.BUCKETS)
        counts = figures.histograms["adapt"].counts
        assert {number: count for number, count in enumerate(counts) if count} == {0: 1, 1: 1, last: 1}
        assert figures.histograms["adapt"].sum == pytest.approx(400.011)
        assert set(figures.histograms) == set(measures.NAMES)

    with_store(settings, body)


def test_model_is_registered_once_with_its_card_and_weights(redis_server: PrivateRedis, sync_store: SyncStore) -> None:
    assert sync_store.models.active_versions() == {}
    clock = Clock(redis_server.client)
    sync_store.models.register("v1", b"one", DRAWINGS)
    sync_store.models.register("v1", b"other", PHOTOS)
    record = sync_store.models.get("v1")
    assert (record.version, record.card, record.active) == ("v1", DRAWINGS, True)
    assert sync_store.models.weights("v1") == b"one"
    assert clock.is_in(0, redis_server.client.zscore(keys.MODELS, "v1"))
    for read in (sync_store.models.get, sync_store.models.weights):
        with pytest.raises(NotFound, match="no model version v2"):
            read("v2")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("MISCONF Redis cannot save", NotSavedError),
        ("Error running script: -OOM command not allowed", OutOfMemoryError),
        ("Error running script: -READONLY You can't write", ReadOnlyError),
        ("Error running script: -MISCONF Redis cannot save", NotSavedError),
        ("WRONGTYPE Operation", ResponseError),
    ],
)
def test_refusals_have_their_own_errors(text: str, kind: type[Exception]) -> None:
    with pytest.raises(ResponseError) as met, refusals_named():
        raise ResponseError(text)
    assert type(met.value) is kind
    assert str(met.value) == text


@pytest.mark.parametrize(("waiting", "seconds"), [(0, 1), (1, 1), (10, 1), (11, 2), (600, 60), (601, 60)])
def test_full_queue_states_when_to_retry(waiting: int, seconds: int) -> None:
    refused = QueueFull.behind(waiting)
    assert (refused.retry_after, refused.own) == (seconds, False)
    assert f"try again in {seconds} s" in str(refused)


def test_lookups_beyond_a_batch_are_sent_in_the_next_round(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup_cache, "MAX_BATCH", 2)

    async def body(store: Store) -> None:
        ids = [(await create(store))[0].id for _ in range(5)]
        redis_server.client.config_resetstat()
        states = await asyncio.gather(*(store.episodes.state(id) for id in [*ids, "nothing"]))
        assert states == ["queued"] * 5 + [None]
        stats: Any = redis_server.client.info("commandstats")
        assert stats["cmdstat_evalsha"]["calls"] == 3

    with_store(settings, body)


def test_versions_that_redis_lost_are_known(sync_store: SyncStore, redis_server: PrivateRedis) -> None:
    assert sync_store.models.lost() == {None}
    for version in ("v1", "v2"):
        sync_store.models.register(version, b"weights", DRAWINGS)
    assert sync_store.models.lost() == set()
    redis_server.client.delete(keys.model("v2"))
    assert sync_store.models.lost() == {"v2"}
    redis_server.client.delete(keys.MODELS, keys.model("v1"))
    assert sync_store.models.lost() == {"v1"}  # the active one
    sync_store.models.register("v1", b"weights", DRAWINGS)
    redis_server.client.delete(keys.MODELS)
    sync_store.models.register("v1", b"weights", DRAWINGS)
    assert redis_server.client.zrange(keys.MODELS, 0, -1) == [b"v1"]
