"""Claims, leases, fences and the reconciler, with the clock of a real Redis."""

import asyncio

import numpy as np
import pytest

from app.settings import Settings
from app.store import keys
from app.store.claims import MAX_ATTEMPTS, Claim
from app.store.clients import Store, SyncStore
from app.store.errors import Gone
from tests.conftest import PrivateRedis
from tests.store.observing import classifier_of
from tests.store.submitting import committed, get, submit


@pytest.fixture
def id(settings: Settings) -> str:
    return asyncio.run(submit(settings)).id


def claimed(store: SyncStore, id: str, worker: str = "one") -> Claim:
    claim = store.claims.claim("episode", id, worker)
    assert claim is not None
    return claim


def let_lease_run_out(server: PrivateRedis, id: str) -> None:
    server.client.zadd(keys.leases("episode"), {id: 1})


def test_only_one_worker_claims(sync_store: SyncStore, id: str) -> None:
    claimed(sync_store, id)
    assert sync_store.claims.claim("episode", id, "two") is None


def test_unknown_episode_is_not_claimed(sync_store: SyncStore) -> None:
    assert sync_store.claims.claim("episode", "nothing", "one") is None


def test_claim_carries_the_support_set(sync_store: SyncStore, id: str) -> None:
    images, labels = sync_store.claims.support(claimed(sync_store, id))
    assert images.dtype == np.uint8
    assert images.shape == (4, 1, 28, 28)
    assert images.flatten()[:5].tolist() == [0, 1, 2, 3, 4]
    assert labels.tolist() == [0, 0, 1, 1]


def test_job_with_an_expired_lease_is_claimed_again_and_the_first_claim_refused(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, id: str
) -> None:
    first = claimed(sync_store, id, "one")
    let_lease_run_out(redis_server, id)
    assert sync_store.reconciliation.due("episode") == [id]
    second = claimed(sync_store, id, "two")
    assert second.fence > first.fence
    assert sync_store.claims.renew(first) == "lost"
    assert not sync_store.claims.report_progress(first, {"step": 9, "losses": []})
    assert not committed(sync_store.claims, first, {}, {}, b"late")
    assert not sync_store.claims.fail(first, "late")
    assert committed(sync_store.claims, second, {"step": 2, "losses": [1.0, 0.5]}, {"support_accuracy": 1.0}, b"right")
    assert not committed(sync_store.claims, second, {}, {}, b"twice")
    assert classifier_of(redis_server, id) == b"right"
    record = get(settings, id)
    assert (record.state, record.step, record.losses, record.support_accuracy) == ("ready", 2, (1.0, 0.5), 1.0)


def test_renewal_keeps_the_lease(redis_server: PrivateRedis, sync_store: SyncStore, id: str) -> None:
    claim = claimed(sync_store, id)
    let_lease_run_out(redis_server, id)
    assert sync_store.claims.renew(claim) == "valid"
    assert sync_store.reconciliation.due("episode") == []


def test_job_that_kills_its_workers_fails_with_a_message(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, id: str
) -> None:
    for _ in range(MAX_ATTEMPTS):
        claimed(sync_store, id)
        let_lease_run_out(redis_server, id)
        sync_store.reconciliation.due("episode")
    record = get(settings, id)
    assert record.state == "failed"
    assert record.attempts == MAX_ATTEMPTS
    assert record.error is not None
    assert "died 3 times" in record.error
    assert sync_store.reconciliation.due("episode") == []


def test_failed_attempt_is_retried_until_the_last_attempt(settings: Settings, sync_store: SyncStore, id: str) -> None:
    for _ in range(MAX_ATTEMPTS - 1):
        assert sync_store.claims.retry(claimed(sync_store, id), "disk full")
        assert sync_store.reconciliation.due("episode") == [id]
    assert sync_store.claims.retry(claimed(sync_store, id), "disk full")
    assert (get(settings, id).state, get(settings, id).error) == ("failed", "disk full")


def test_handing_back_is_not_counted_as_an_attempt(settings: Settings, sync_store: SyncStore, id: str) -> None:
    assert sync_store.claims.hand_back(claimed(sync_store, id))
    assert (get(settings, id).state, get(settings, id).attempts) == ("queued", 0)
    assert sync_store.reconciliation.due("episode") == [id]


def test_only_the_lease_of_a_dead_child_expires_at_once(sync_store: SyncStore, id: str) -> None:
    claimed(sync_store, id, "one")
    assert not sync_store.reconciliation.expire_lease("episode", id, "another")
    assert sync_store.reconciliation.due("episode") == []
    assert sync_store.reconciliation.expire_lease("episode", id, "one")
    assert sync_store.reconciliation.due("episode") == [id]


def test_wake_up_is_repeated_only_when_the_message_must_have_been_lost(
    redis_server: PrivateRedis, sync_store: SyncStore, id: str
) -> None:
    redis = redis_server.client
    two_seconds_ago = redis.time()[0] * 1000 - 2000
    redis.zadd(keys.queued("episode"), {id: two_seconds_ago})
    assert sync_store.reconciliation.due("episode") == []  # its message is still in the queue
    redis.delete(keys.broker_queue("episode"))
    assert sync_store.reconciliation.due("episode") == [id]
    assert sync_store.reconciliation.due("episode") == []  # it has just been sent


def test_draining_worker_is_informed_at_its_next_renewal(sync_store: SyncStore, id: str) -> None:
    claim = claimed(sync_store, id, "one")
    sync_store.workers.drain("two", 60)
    assert sync_store.claims.renew(claim) == "valid"
    sync_store.workers.drain("one", 60)
    assert sync_store.claims.renew(claim) == "drain"


def test_deleting_a_running_episode_drops_its_result(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, id: str
) -> None:
    claim = claimed(sync_store, id)

    async def delete() -> None:
        store = await Store.open(settings)
        try:
            await store.episodes.delete(id)
        finally:
            await store.close()

    asyncio.run(delete())
    assert sync_store.claims.renew(claim) == "lost"
    assert not committed(sync_store.claims, claim, {}, {}, b"late")
    assert classifier_of(redis_server, id) is None
    with pytest.raises(Gone):
        get(settings, id)


def test_accepted_episode_survives_a_crash_of_redis(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, id: str
) -> None:
    redis_server.restart()
    assert get(settings, id).state == "queued"
    sync_store.claims.support(claimed(SyncStore.open(settings), id))
