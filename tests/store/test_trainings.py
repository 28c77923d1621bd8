"""Training runs in the store: cancelling, resuming, failing and finishing, with a real Redis."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings import Settings
from app.store import keys
from app.store.claims import MAX_ATTEMPTS, Claim
from app.store.clients import Store, SyncStore
from app.store.errors import Conflict, NotFound, NotReplicatedError
from app.store.records import TrainingRecord
from app.store.trainings import Trainings
from tests.conftest import PrivateRedis
from tests.store.observing import Clock, waiting
from tests.store.submitting import DRAWINGS
from tests.store.test_async_store import with_store


def ended_at(server: PrivateRedis, id: str) -> object:
    """When the run ended (ms); None if it has not."""
    return server.client.hget(keys.record("training", id), "ended_at")


async def running(store: Store, sync_store: SyncStore) -> tuple[TrainingRecord, Claim]:
    """A new run and a worker's claim on it."""
    record = await store.trainings.create(owner="owner1", dataset="shapes", options={})
    claim = sync_store.claims.claim("training", record.id, "one")
    assert claim is not None
    return record, claim


def test_queued_training_is_cancelled_at_once_and_resumed(redis_server: PrivateRedis, settings: Settings) -> None:
    clock = Clock(redis_server.client)

    async def body(store: Store) -> None:
        record = await store.trainings.create(owner="owner1", dataset="shapes", options={"ways": 5})
        assert (record.state, record.options) == ("queued", {"ways": 5})
        assert (await store.trainings.cancel(record.id)).state == "cancelled"
        assert clock.is_in(0, ended_at(redis_server, record.id))
        assert (await waiting(store))["train"] == 0
        assert (await store.trainings.resume(record.id)).state == "queued"
        assert ended_at(redis_server, record.id) is None
        assert [run.id for run in (await store.trainings.page(None, 100))[0]] == [record.id]

    with_store(settings, body)


def test_resuming_a_run_again_changes_nothing(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore
) -> None:
    async def body(store: Store) -> None:
        record = await store.trainings.create(owner="owner1", dataset="shapes", options={})
        await store.trainings.cancel(record.id)
        first = await store.trainings.resume(record.id)
        messages = redis_server.client.llen(keys.broker_queue("training"))
        assert await store.trainings.resume(record.id) == first
        claim = sync_store.claims.claim("training", record.id, "one")
        assert claim is not None
        assert (await store.trainings.resume(record.id)).state == "running"
        assert sync_store.claims.renew(claim) == "valid"
        assert redis_server.client.llen(keys.broker_queue("training")) == messages

    with_store(settings, body)


def test_a_run_that_is_removed_while_it_is_resumed_stays_removed(
    redis_server: PrivateRedis, settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: Store) -> None:
        record = await store.trainings.create(owner="owner1", dataset="shapes", options={})
        await store.trainings.cancel(record.id)
        get = store.trainings.get

        async def removed_then(id: str) -> TrainingRecord:
            found = await get(id)
            sync_store.trainings.remove(id)
            return found

        monkeypatch.setattr(store.trainings, "get", removed_then)
        with pytest.raises(NotFound):
            await store.trainings.resume(record.id)
        assert not sync_store.trainings.exists(record.id)
        assert (await waiting(store))["train"] == 0

    with_store(settings, body)


def test_run_that_is_being_cancelled_or_has_finished_is_not_resumed(settings: Settings, sync_store: SyncStore) -> None:
    async def body(store: Store) -> None:
        record, claim = await running(store, sync_store)
        await store.trainings.cancel(record.id)
        with pytest.raises(Conflict, match="being cancelled"):
            await store.trainings.resume(record.id)
        assert sync_store.claims.commit_training(claim, "v2", b"weights", DRAWINGS)
        with pytest.raises(Conflict, match="finished"):
            await store.trainings.resume(record.id)

    with_store(settings, body)


def test_running_training_is_informed_of_its_cancellation_at_its_renewal(
    settings: Settings, sync_store: SyncStore
) -> None:
    async def body(store: Store) -> None:
        record, claim = await running(store, sync_store)
        assert sync_store.claims.renew(claim) == "valid"
        assert (await store.trainings.cancel(record.id)).cancelling
        assert sync_store.claims.renew(claim) == "cancel"
        assert sync_store.claims.cancelled(claim)
        assert (await store.trainings.get(record.id)).state == "cancelled"

    with_store(settings, body)


def lose(server: PrivateRedis, store: SyncStore, claim: Claim) -> None:
    server.client.zadd(keys.leases("training"), {claim.id: 1})
    store.reconciliation.due("training")


def lose_for_the_last_time(server: PrivateRedis, store: SyncStore, claim: Claim) -> None:
    server.client.hset(keys.record("training", claim.id), "attempts", MAX_ATTEMPTS)
    lose(server, store, claim)


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (lambda _, store, claim: store.claims.hand_back(claim), "cancelled"),
        (lambda _, store, claim: store.claims.retry(claim, "disk full"), "cancelled"),
        (lose, "cancelled"),
        (lose_for_the_last_time, "cancelled"),
        (lambda _, store, claim: store.claims.fail(claim, "no such data"), "failed"),
        (lambda _, store, claim: store.claims.commit_training(claim, "v2", b"weights", DRAWINGS), "finished"),
    ],
)
def test_accepted_cancellation_takes_effect_however_the_claim_ends(
    end: Callable[[PrivateRedis, SyncStore, Claim], object],
    state: str,
    redis_server: PrivateRedis,
    sync_store: SyncStore,
) -> None:
    async def body(store: Store) -> None:
        clock = Clock(redis_server.client)
        record, claim = await running(store, sync_store)
        assert (await store.trainings.cancel(record.id)).cancelling
        with store.changes.waiting(f"training:{record.id}") as notified:
            end(redis_server, sync_store, claim)
            async with asyncio.timeout(60):
                await notified.wait()
        ended = await store.trainings.get(record.id)
        assert (ended.state, ended.cancelling) == (state, False)
        assert (ended.error is None) == (state != "failed")
        assert clock.is_in(0, ended_at(redis_server, record.id))
        assert sync_store.reconciliation.due("training") == []
        assert sync_store.claims.claim("training", record.id, "two") is None

    with_store(redis_server.settings, body)


def test_finished_training_registers_its_model_once(settings: Settings, sync_store: SyncStore) -> None:
    async def body(store: Store) -> None:
        record, claim = await running(store, sync_store)
        assert sync_store.claims.commit_training(claim, "v2", b"weights", DRAWINGS)
        assert not sync_store.claims.commit_training(claim, "v3", b"others", DRAWINGS)
        assert [model.version for model in await store.models.all()] == ["v2"]
        assert (await store.trainings.get(record.id)).model_version == "v2"
        assert sync_store.models.weights("v2") == b"weights"

    with_store(settings, body)


def test_training_that_makes_progress_does_not_fail(redis_server: PrivateRedis, sync_store: SyncStore) -> None:
    async def body(store: Store) -> None:
        record = await store.trainings.create(owner="owner1", dataset="shapes", options={})
        for epoch in (1, 2, 3, 4, 5, 5, 5):
            claim = sync_store.claims.claim("training", record.id, "one")
            assert claim is not None, f"given up at epoch {epoch}"
            assert sync_store.claims.report_progress(claim, {"epoch": epoch, "epochs": 9}, epoch=epoch)
            redis_server.client.zadd(keys.leases("training"), {record.id: 1})
            sync_store.reconciliation.due("training")
        failed = await store.trainings.get(record.id)
        assert failed.state == "failed"
        assert ended_at(redis_server, record.id) is not None
        assert "without getting any further" in (failed.error or "")

    with_store(redis_server.settings, body)


def test_a_run_that_is_withdrawn_while_it_is_in_progress_is_taken_from_its_worker(
    redis_server: PrivateRedis,
    settings: Settings,
    sync_store: SyncStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was taken before its request failed."""
    (tmp_path / "checkpoint").write_bytes(b"1")
    taken: list[Claim] = []

    async def taken_then_lost(self: Trainings, id: str) -> TrainingRecord:
        claim = sync_store.claims.claim("training", id, "one")
        assert claim is not None
        assert sync_store.folders.keep_checkpoint(claim, 1, tmp_path)
        taken.append(claim)
        raise NotReplicatedError

    monkeypatch.setattr(Trainings, "_confirmed", taken_then_lost)

    async def body(store: Store) -> None:
        with pytest.raises(NotReplicatedError):
            await store.trainings.create(owner="owner1", dataset="shapes", options={})

    with_store(settings, body)
    assert sync_store.claims.renew(taken[0]) == "lost"
    for each in (keys.index("training"), keys.queued("training"), keys.leases("training")):
        assert redis_server.client.zcard(each) == 0
    assert redis_server.client.hlen(keys.CHECKPOINTS) == 0
