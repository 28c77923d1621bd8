"""Everything that a claim changes in Redis, and how long claims last."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from app.settings import Settings
from app.store import claims, keys
from app.store.claims import MAX_ATTEMPTS, Claim
from app.store.clients import Store, SyncStore
from app.store.errors import NotFound
from app.store.keys import Kind
from tests.conftest import PrivateRedis
from tests.store.observing import Clock, notices, waiting
from tests.store.submitting import DRAWINGS, PHOTOS, committed, create
from tests.store.test_async_store import with_store

KINDS: list[Kind] = ["episode", "training"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def id(settings: Settings, kind: Kind) -> str:
    """A queued job."""
    ids: list[str] = []

    async def body(store: Store) -> None:
        if kind == "episode":
            ids.append((await create(store))[0].id)
        else:
            ids.append((await store.trainings.create(owner="owner1", dataset="shapes", options={})).id)

    with_store(settings, body)
    return ids[0]


def claim(store: SyncStore, kind: Kind, id: str, worker: str = "one") -> Claim:
    claimed = store.claims.claim(kind, id, worker)
    assert claimed is not None
    return claimed


def fields(server: PrivateRedis, kind: Kind, id: str) -> dict[str, str]:
    hash: Any = server.client.hgetall(keys.record(kind, id))
    return {name.decode(): value.decode() for name, value in hash.items()}


LEASE_MS = {"episode": 3000, "training": 15000}
RUNNING = {"episode": "adapting", "training": "running"}


def test_claim_moves_a_job_from_the_queue_to_the_leases(
    redis_server: PrivateRedis, sync_store: SyncStore, kind: Kind, id: str
) -> None:
    redis_server.client.hset(keys.record(kind, id), mapping={"error": "before", "progress": '{"losses":[1.0]}'})
    clock = Clock(redis_server.client)
    with notices(redis_server) as changed:
        claimed = claim(sync_store, kind, id)
    assert changed == [f"{kind}:{id}"]
    found = fields(redis_server, kind, id)
    assert (found["state"], found["worker"], found["attempts"], found["fence"]) == (RUNNING[kind], "one", "1", "1")
    assert "error" not in found
    assert found["progress"] == ("{}" if kind == "episode" else '{"losses":[1.0]}')
    assert (claimed.fence, claimed.worker, claimed.record.state, claimed.record.attempts) == (
        1,
        "one",
        RUNNING[kind],
        1,
    )
    assert redis_server.client.zcard(keys.queued(kind)) == 0
    assert clock.is_in(LEASE_MS[kind], redis_server.client.zscore(keys.leases(kind), id))


def test_renewed_lease_lasts_its_full_time_from_now(
    redis_server: PrivateRedis, sync_store: SyncStore, kind: Kind, id: str
) -> None:
    claimed = claim(sync_store, kind, id)
    redis_server.client.zadd(keys.leases(kind), {id: 1})
    clock = Clock(redis_server.client)
    assert sync_store.claims.renew(claimed) == "valid"
    assert clock.is_in(LEASE_MS[kind], redis_server.client.zscore(keys.leases(kind), id))


@pytest.mark.parametrize("changed", [{"fence": 2}, {"state": "queued"}])
def test_claim_that_is_not_valid_changes_nothing(
    redis_server: PrivateRedis, sync_store: SyncStore, kind: Kind, id: str, changed: dict[Any, Any]
) -> None:
    claimed = claim(sync_store, kind, id)
    redis_server.client.hset(keys.record(kind, id), mapping=changed)
    redis_server.client.zadd(keys.leases(kind), {id: 1})
    before = fields(redis_server, kind, id)
    assert sync_store.claims.renew(claimed) == "lost"
    with notices(redis_server) as announced:
        assert not sync_store.claims.report_progress(claimed, {"step": 9})
        for end in (sync_store.claims.fail, sync_store.claims.retry):
            assert not end(claimed, "late")
        assert not sync_store.claims.cancelled(claimed)
        assert not sync_store.claims.hand_back(claimed)
        if kind == "episode":
            assert not committed(sync_store.claims, claimed, {}, {}, b"late")
        else:
            assert not sync_store.claims.commit_training(claimed, "v", b"late", DRAWINGS)
    assert (announced, fields(redis_server, kind, id)) == ([], before)
    assert redis_server.client.zscore(keys.leases(kind), id) == 1
    assert redis_server.client.zcard(keys.MODELS) == redis_server.client.hlen(keys.CLASSIFIERS) == 0
    assert list(redis_server.settings.objects_dir.glob("classifiers/*")) == []


def test_progress_is_stored_and_announced(
    redis_server: PrivateRedis, sync_store: SyncStore, kind: Kind, id: str
) -> None:
    claimed = claim(sync_store, kind, id)
    with notices(redis_server) as changed:
        assert sync_store.claims.report_progress(claimed, {"losses": [0.5]}, epoch=0)
    found = fields(redis_server, kind, id)
    assert (changed, found["progress"]) == ([f"{kind}:{id}"], '{"losses":[0.5]}')
    assert "furthest" not in found


def test_attempts_are_reset_only_when_a_run_makes_progress(
    redis_server: PrivateRedis, sync_store: SyncStore, settings: Settings
) -> None:
    async def body(store: Store) -> None:
        id = (await store.trainings.create(owner="owner1", dataset="shapes", options={})).id
        claimed = claim(sync_store, "training", id)
        record = keys.record("training", id)
        for epoch, attempts in ((1, "1"), (1, "3"), (2, "1"), (10, "1"), (9, "3"), (10, "3"), (11, "1")):
            redis_server.client.hset(record, "attempts", 3)
            assert sync_store.claims.report_progress(claimed, {}, epoch=epoch)
            assert fields(redis_server, "training", id)["attempts"] == attempts, epoch

    with_store(settings, body)


@pytest.mark.parametrize(
    ("end", "attempts", "state", "counted", "error"),
    [
        (lambda store, claimed: store.claims.fail(claimed, "no"), 1, "failed", "1", "no"),
        (lambda store, claimed: store.claims.retry(claimed, "no"), MAX_ATTEMPTS - 1, "queued", "2", None),
        (lambda store, claimed: store.claims.retry(claimed, "no"), MAX_ATTEMPTS, "failed", "3", "no"),
        (lambda store, claimed: store.claims.hand_back(claimed), MAX_ATTEMPTS, "queued", "2", None),
        (lambda store, claimed: store.claims.cancelled(claimed), 1, "cancelled", "1", None),
    ],
)
def test_end_of_a_claim_is_stored_and_announced(
    end: Callable[[SyncStore, Claim], bool],
    attempts: int,
    state: str,
    counted: str,
    error: str | None,
    redis_server: PrivateRedis,
    sync_store: SyncStore,
    kind: Kind,
    id: str,
) -> None:
    claimed = claim(sync_store, kind, id)
    redis_server.client.hset(keys.record(kind, id), "attempts", attempts)
    clock = Clock(redis_server.client)
    with notices(redis_server) as changed:
        assert end(sync_store, claimed)
    found = fields(redis_server, kind, id)
    assert (changed, found["state"], found["attempts"]) == ([f"{kind}:{id}"], state, counted)
    assert found.get("error") == error
    assert redis_server.client.zcard(keys.leases(kind)) == 0
    # 0: the reconciler sends its wake-up next.
    assert redis_server.client.zscore(keys.queued(kind), id) == (0 if state == "queued" else None)
    assert state != "queued" or clock.is_in(0, found["queued_at"])


def test_finished_run_is_announced_and_its_lease_ends(
    redis_server: PrivateRedis, sync_store: SyncStore, settings: Settings
) -> None:
    async def body(store: Store) -> None:
        id = (await store.trainings.create(owner="owner1", dataset="shapes", options={})).id
        claimed = claim(sync_store, "training", id)
        clock = Clock(redis_server.client)
        with notices(redis_server) as changed:
            assert sync_store.claims.commit_training(claimed, "v2", b"weights", PHOTOS)
        assert changed == [f"training:{id}"]
        assert redis_server.client.zcard(keys.leases("training")) == 0
        assert await store.models.active_versions() == {"photos": "v2"}
        model = await store.models.get("v2")
        assert model.card == PHOTOS
        assert clock.is_in(0, model.created_at * 1000)

    with_store(settings, body)


def test_support_set_of_a_deleted_episode_is_not_found(
    redis_server: PrivateRedis, sync_store: SyncStore, settings: Settings
) -> None:
    async def body(store: Store) -> None:
        id = (await create(store))[0].id
        claimed = claim(sync_store, "episode", id)
        images, _ = sync_store.claims.support(claimed)
        images[0] = 1  # not read-only
        await store.episodes.delete(id)
        with pytest.raises(NotFound, match="was deleted"):
            sync_store.claims.support(claimed)

    with_store(settings, body)


# ---------------------------------------------------------------------- reconciliation


def test_lease_expires_at_its_time_and_not_before(
    redis_server: PrivateRedis, sync_store: SyncStore, kind: Kind, id: str
) -> None:
    claim(sync_store, kind, id)
    assert sync_store.reconciliation.due(kind) == []
    redis_server.client.zadd(keys.leases(kind), {id: Clock(redis_server.client).started - 1})
    clock = Clock(redis_server.client)
    with notices(redis_server) as changed:
        assert sync_store.reconciliation.due(kind) == [id]
    assert changed == [f"{kind}:{id}"]
    assert fields(redis_server, kind, id)["state"] == "queued"
    assert redis_server.client.zcard(keys.leases(kind)) == 0
    assert clock.is_in(0, redis_server.client.zscore(keys.queued(kind), id))


@pytest.mark.parametrize(("attempts", "state"), [(MAX_ATTEMPTS - 1, "queued"), (MAX_ATTEMPTS, "failed")])
def test_job_fails_after_the_last_attempt_and_not_before(
    redis_server: PrivateRedis, sync_store: SyncStore, kind: Kind, id: str, attempts: int, state: str
) -> None:
    claim(sync_store, kind, id)
    redis_server.client.hset(keys.record(kind, id), "attempts", attempts)
    redis_server.client.zadd(keys.leases(kind), {id: 1})
    with notices(redis_server) as changed:
        assert sync_store.reconciliation.due(kind) == ([id] if state == "queued" else [])
    found = fields(redis_server, kind, id)
    assert (changed, found["state"]) == ([f"{kind}:{id}"], state)
    assert ("given up" in found.get("error", "")) == (state == "failed")


def test_lease_of_a_missing_record_is_removed_without_a_notification(
    redis_server: PrivateRedis, sync_store: SyncStore
) -> None:
    redis_server.client.zadd(keys.leases("episode"), {"gone": 1})
    with notices(redis_server) as changed:
        assert sync_store.reconciliation.due("episode") == []
    assert (changed, redis_server.client.zcard(keys.leases("episode"))) == ([], 0)
    assert not redis_server.client.exists(keys.record("episode", "gone"))


def test_at_most_a_hundred_due_wake_ups_are_returned(redis_server: PrivateRedis, sync_store: SyncStore) -> None:
    redis_server.client.zadd(keys.queued("episode"), {f"id{number:03}": 0 for number in range(101)})
    assert [len(sync_store.reconciliation.due("episode")) for _ in range(3)] == [100, 1, 0]


@pytest.mark.parametrize(
    ("waiting", "messages", "seconds", "due"),
    [
        (2, 0, 0, False),
        (2, 0, 1.5, True),
        (2, 1, 50, False),
        (2, 1, 61, True),
        (2, 2, 3600, False),
    ],
)
def test_wake_up_is_sent_again_when_it_must_have_been_lost(
    redis_server: PrivateRedis, sync_store: SyncStore, waiting: int, messages: int, seconds: float, due: bool
) -> None:
    client = redis_server.client
    ids = [f"id{number}" for number in range(waiting)]
    clock = Clock(client)
    for number in range(messages):
        client.rpush(keys.broker_queue("episode"), number)
    woken_at = clock.started - seconds * 1000
    client.zadd(keys.queued("episode"), dict.fromkeys(ids, woken_at))
    assert sync_store.reconciliation.due("episode") == (ids if due else [])
    for id in ids:
        score = client.zscore(keys.queued("episode"), id)
        assert clock.is_in(0, score) if due else score == woken_at


def test_only_the_lease_of_a_leased_job_is_expired(
    redis_server: PrivateRedis, sync_store: SyncStore, kind: Kind, id: str
) -> None:
    claimed = claim(sync_store, kind, id)
    assert sync_store.claims.hand_back(claimed)
    assert not sync_store.reconciliation.expire_lease(kind, id, "one")
    assert redis_server.client.zcard(keys.leases(kind)) == 0


def test_leases_are_as_long_as_documented() -> None:
    assert {kind: seconds * 1000 for kind, seconds in claims.LEASE_S.items()} == LEASE_MS


# ---------------------------------------------------------------------- training runs


def test_key_of_a_training_request_is_kept_for_a_day(redis_server: PrivateRedis, settings: Settings) -> None:
    async def body(store: Store) -> None:
        clock = Clock(redis_server.client)
        request: dict[str, Any] = {
            "owner": "o",
            "dataset": "shapes",
            "options": {"a": 1, "b": 2},
            "idempotency_key": "k",
        }
        runs = await asyncio.gather(*(store.trainings.create(**request) for _ in range(3)))
        assert len({run.id for run in runs}) == 1
        assert clock.expires_in(86_400_000, keys.idempotency("o", "k"))
        assert clock.is_in(0, redis_server.client.zscore(keys.queued("training"), runs[0].id))
        assert (await waiting(store))["train"] == 1

    with_store(settings, body)


@pytest.mark.parametrize("running", [False, True])
def test_cancelling_and_resuming_are_announced_and_clear_earlier_fields(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, running: bool
) -> None:
    async def body(store: Store) -> None:
        id = (await store.trainings.create(owner="o", dataset="shapes", options={})).id
        claimed = claim(sync_store, "training", id) if running else None
        with notices(redis_server) as changed:
            await store.trainings.cancel(id)
        assert changed == [f"training:{id}"]
        if claimed is not None:
            assert sync_store.claims.fail(claimed, "disk full")
        with notices(redis_server) as changed:
            ended = await store.trainings.cancel(id)
        assert (changed, ended.state) == ([], "failed" if running else "cancelled")
        redis_server.client.hset(keys.record("training", id), "attempts", 3)
        redis_server.client.delete(keys.broker_queue("training"))
        clock = Clock(redis_server.client)
        with notices(redis_server) as changed:
            resumed = await store.trainings.resume(id)
        assert changed == [f"training:{id}"]
        assert (resumed.state, resumed.error, resumed.attempts, resumed.cancelling) == ("queued", None, 0, False)
        assert redis_server.client.llen(keys.broker_queue("training")) == 1
        assert clock.is_in(0, redis_server.client.zscore(keys.queued("training"), id))

    with_store(settings, body)
