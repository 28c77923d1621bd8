"""Episodes of equal shape are claimed together, in turn, and an attempt together with others does not count."""

from typing import Any

import numpy as np
import pytest

from app.settings import Settings
from app.store import keys
from app.store.claims import Claim
from app.store.clients import Store, SyncStore
from app.store.errors import NotReady
from tests.conftest import PrivateRedis
from tests.store.observing import Clock
from tests.store.submitting import SUPPORT, committed, create, get
from tests.store.test_async_store import with_store
from tests.store.test_turns import queue, taken

UNLIKE: list[dict[str, Any]] = [
    {"model_version": "fedcba9876543210"},
    {"steps": 4},
    {"support": np.concatenate([SUPPORT, SUPPORT[:1]]), "labels": [0, 0, 1, 1, 1], "shots": [2, 3]},
    {"classes": ["a", "b", "c"], "labels": [0, 1, 2, 2], "shots": [1, 1, 2]},
]


UNLABELLED = {"labels": [0, 0, 1, -1], "shots": [2, 1]}


def submit_one(settings: Settings, **changed: Any) -> str:
    ids: list[str] = []

    async def body(store: Store) -> None:
        ids.append((await create(store, **changed))[0].id)

    with_store(settings, body)
    return ids[0]


def together(store: SyncStore, most: int = 9) -> list[Claim]:
    """A claim, and those on the episodes that are like it; the wake-up is for the first one."""
    first = taken(store, "any")
    return [first, *store.claims.claim_alike(first, most, "any")]


def ids_of(claims: list[Claim]) -> list[str]:
    return [claim.id for claim in claims]


def test_episodes_of_equal_shape_are_claimed_together_up_to_the_limit(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    ids = queue(settings, *["a"] * 4)
    clock = Clock(redis_server.client)
    claims = together(sync_store, 2)
    assert ids_of(claims) == ids[:3]
    for claim in claims:
        assert (claim.fence, claim.worker, claim.record.state, claim.record.attempts) == (1, "one", "adapting", 1)
        assert clock.is_in(3000, redis_server.client.zscore(keys.leases("episode"), claim.id))
        assert sync_store.claims.renew(claim) == "valid"
        assert committed(sync_store.claims, claim, {}, {}, b"classifier")
    assert taken(sync_store).id == ids[3]


@pytest.mark.parametrize("changed", UNLIKE, ids=["model", "steps", "images", "classes"])
def test_an_episode_of_another_shape_is_not_claimed_with_others(
    settings: Settings, sync_store: SyncStore, changed: dict[str, Any]
) -> None:
    first, unlike, third = submit_one(settings), submit_one(settings, **changed), submit_one(settings)
    assert ids_of(together(sync_store)) == [first]
    assert ids_of(together(sync_store)) == [unlike]
    assert ids_of(together(sync_store)) == [third]


def test_an_episode_that_has_images_without_a_label_is_claimed_alone(settings: Settings, sync_store: SyncStore) -> None:
    ids = [submit_one(settings, **UNLABELLED), submit_one(settings, **UNLABELLED), submit_one(settings)]
    assert [ids_of(together(sync_store)) for _ in ids] == [[id] for id in ids]


def test_owners_take_turns_as_if_their_episodes_were_claimed_one_by_one(
    settings: Settings, sync_store: SyncStore
) -> None:
    queue(settings, *"aaaaab", "b", "c")
    claims = together(sync_store, 5)
    assert [claim.record.owner for claim in claims] == ["a", "b", "c", "a", "b", "a"]
    queue(settings, "d", "b")
    assert [claim.record.owner for claim in together(sync_store)] == ["d", "b", "a", "a"]


def test_none_are_claimed_for_a_claim_that_has_ended(settings: Settings, sync_store: SyncStore) -> None:
    queue(settings, "a", "a")
    first = taken(sync_store)
    assert committed(sync_store.claims, first, {}, {}, b"classifier")
    assert sync_store.claims.claim_alike(first, 9, "any") == []


def test_all_that_a_dead_process_claimed_together_is_requeued_at_once_and_attempted_alone(
    settings: Settings, sync_store: SyncStore
) -> None:
    ids = queue(settings, "a", "a", "a")
    together(sync_store)
    assert sync_store.reconciliation.expire_lease("episode", "any", "one")
    assert sync_store.reconciliation.due("episode") == ids
    for id in ids:
        claims = together(sync_store)
        assert ids_of(claims) == [id]
        assert claims[0].record.attempts == 1


@pytest.mark.parametrize("end", ["retry", "lease"])
def test_an_attempt_together_does_not_count_and_those_alone_do(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, end: str
) -> None:
    ids = queue(settings, "a", "b")  # who take turns

    def give_up(claim: Claim) -> None:
        if end == "retry":
            assert sync_store.claims.retry(claim, "failed")
        else:
            redis_server.client.zadd(keys.leases("episode"), {claim.id: 1})
            sync_store.reconciliation.due("episode")

    for claim in together(sync_store):
        give_up(claim)
    for attempt in (1, 2, 3):
        for id in ids:
            (claim,) = together(sync_store)
            assert (claim.id, claim.record.attempts) == (id, attempt)
            give_up(claim)
    assert [get(settings, id).state for id in ids] == ["failed", "failed"]


def test_no_lease_is_ended_if_the_same_wake_up_led_to_two_claims_of_several(
    settings: Settings, sync_store: SyncStore
) -> None:
    """It came twice, to two pool processes of a worker: which of them has died cannot be told."""
    queue(settings, *"aaaa")
    for _ in range(2):
        together(sync_store, 1)
    assert not sync_store.reconciliation.expire_lease("episode", "any", "one")
    assert sync_store.reconciliation.due("episode") == []


def test_episodes_that_are_handed_back_can_be_claimed_together_again(settings: Settings, sync_store: SyncStore) -> None:
    ids = queue(settings, "a", "a")
    for claim in together(sync_store):
        assert sync_store.claims.hand_back(claim)
    assert ids_of(together(sync_store)) == ids


def test_an_episode_whose_classifier_was_dropped_can_be_claimed_together_again(
    settings: Settings, sync_store: SyncStore
) -> None:
    ids = queue(settings, "a", "a")
    for claim in together(sync_store):
        assert committed(sync_store.claims, claim, {}, {}, b"classifier")

    async def drop_and_ask(store: Store) -> None:
        for id in ids:
            await store.episodes._redis.hdel(keys.CLASSIFIERS, id)
            with pytest.raises(NotReady, match="queued"):
                await store.episodes.artifact(id)

    with_store(settings, drop_and_ask)
    claims = together(sync_store)
    assert ids_of(claims) == ids
    assert [claim.record.attempts for claim in claims] == [1, 1]
