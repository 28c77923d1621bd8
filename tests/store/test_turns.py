"""Tenants take turns to have their episodes adapted."""

from app.settings import Settings
from app.store import keys
from app.store.claims import Claim
from app.store.clients import Store, SyncStore
from tests.conftest import PrivateRedis
from tests.store.observing import Clock
from tests.store.submitting import create
from tests.store.test_async_store import with_store


def queue(settings: Settings, *owners: str) -> list[str]:
    """The ids of new episodes of these owners, in this order."""
    ids: list[str] = []

    async def body(store: Store) -> None:
        for owner in owners:
            ids.append((await create(store, owner=owner))[0].id)

    with_store(settings, body)
    return ids


def taken(store: SyncStore, woken_by: str = "any") -> Claim:
    claim = store.claims.claim_next(woken_by, "one")
    assert claim is not None
    return claim


def owners_taken(store: SyncStore, number: int) -> list[str]:
    return [taken(store).record.owner for _ in range(number)]


def test_another_tenant_waits_for_one_turn_of_one_with_many_episodes(settings: Settings, sync_store: SyncStore) -> None:
    queue(settings, *["a"] * 30)
    assert owners_taken(sync_store, 2) == ["a", "a"]
    queue(settings, "b", "b", "c", "b")
    assert owners_taken(sync_store, 7) == ["b", "c", "a", "b", "a", "b", "a"]


def test_a_tenant_gets_its_oldest_episode_first(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    ids = queue(settings, "a", "a", "a")
    redis_server.client.zadd(keys.queued("episode"), {ids[0]: 10**15})  # its wake-up was sent last
    assert [taken(sync_store, ids[2]).id for _ in ids] == ids
    assert sync_store.claims.claim_next(ids[0], "one") is None


def test_what_is_claimed_in_turn_is_leased_like_any_claim(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    (id,) = queue(settings, "a")
    clock = Clock(redis_server.client)
    claim = taken(sync_store)
    assert (claim.kind, claim.fence, claim.worker, claim.record.state) == ("episode", 1, "one", "adapting")
    assert clock.is_in(3000, redis_server.client.zscore(keys.leases("episode"), id))
    assert redis_server.client.zcard(keys.queued("episode")) == 0
    assert clock.expires_in(86_400_000, keys.TURNS)
    assert sync_store.claims.renew(claim) == "valid"


def test_an_episode_that_has_expired_is_passed_over(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    expired, left = queue(settings, "a", "b")
    redis_server.client.delete(keys.record("episode", expired))
    assert taken(sync_store).id == left
    assert sync_store.claims.claim_next("any", "one") is None


def test_only_the_job_that_the_wake_up_led_to_loses_its_lease(settings: Settings, sync_store: SyncStore) -> None:
    ids = queue(settings, "a", "a", "b")
    assert [taken(sync_store, woken_by).id for woken_by in reversed(ids)] == [ids[0], ids[2], ids[1]]
    reconciliation = sync_store.reconciliation
    assert not reconciliation.expire_lease("episode", ids[2], "two")
    assert not reconciliation.expire_lease("training", ids[2], "one")
    assert reconciliation.due("episode") == []
    assert reconciliation.expire_lease("episode", ids[1], "one")
    assert reconciliation.due("episode") == [ids[2]]


def test_no_lease_is_ended_if_the_same_wake_up_led_to_several_jobs(settings: Settings, sync_store: SyncStore) -> None:
    """It came twice, to two pool processes of a worker: which of them has died cannot be told."""
    ids = queue(settings, "a", "a")
    first, second = taken(sync_store, ids[0]), taken(sync_store, ids[0])
    assert not sync_store.reconciliation.expire_lease("episode", ids[0], "one")
    assert sync_store.reconciliation.due("episode") == []
    assert sync_store.claims.hand_back(first)
    assert sync_store.reconciliation.expire_lease("episode", ids[0], "one")
    assert second.id in sync_store.reconciliation.due("episode")
