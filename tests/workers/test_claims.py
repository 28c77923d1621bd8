"""Work continues only while its claim is valid, and the claim is valid while its lease is renewed."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

import workers.child
from app.settings import Settings
from app.store.claims import MAX_ATTEMPTS, Claim, Claims, LeaseStatus
from app.store.clients import Store, SyncStore
from app.store.keys import Kind
from app.store.objects import Objects
from app.store.records import EpisodeRecord, TrainingRecord
from app.store.registry import Call, run
from tests.conftest import PrivateRedis
from tests.store.submitting import get, submit
from tests.store.test_async_store import with_store
from tests.waiting import PATIENCE_S
from tests.workers.fake_learner import VERSION, Adapted, FakeLearner, Progress
from workers import adapt, claims, train
from workers.child import Child
from workers.claims import LeaseRenewal


class WatchedClaims(Claims):
    """Signals when Redis has refused a renewal, and when a renewal reports that the worker is shutting down."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.refused, self.draining = threading.Event(), threading.Event()

    def renew(self, claim: Claim) -> LeaseStatus:
        try:
            answer = super().renew(claim)
        except NoPermissionError:
            self.refused.set()
            raise
        if answer == "drain":
            self.draining.set()
        return answer


def test_lease_is_renewed_again_after_redis_refused_once(
    redis_server: PrivateRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RENEW_S", 0.01)
    store = SyncStore.open(settings)
    store.claims = watched = WatchedClaims(redis_server.client, Objects.open(settings), 2**30)
    id = asyncio.run(submit(settings)).id
    claim = store.claims.claim("episode", id, "one")
    assert claim is not None
    with LeaseRenewal(store, claim):
        redis_server.client.acl_setuser("default", enabled=True, commands=["-evalsha"])
        assert watched.refused.wait(PATIENCE_S)
        redis_server.client.acl_setuser("default", enabled=True, commands=["+evalsha"])
        store.workers.drain("one", 60)
        assert watched.draining.wait(PATIENCE_S)
    store.close()


class Overtaken(FakeLearner):
    """Another worker claims the job before this one renews its lease; then this one reports its progress."""

    went_on: ClassVar[list[str]] = []

    def adapt(self, record: EpisodeRecord, support: Any, labels: Any, on_step: Any) -> Adapted:
        self.overtake("episode", record.id)
        on_step(1, 3, 1.0)
        self.went_on.append(record.id)
        return super().adapt(record, support, labels, lambda *_: None)

    def train(self, record: TrainingRecord, data: Any, run_dir: Any, on_progress: Any, should_stop: Any) -> Any:
        self.overtake("training", record.id)
        on_progress(Progress(1, 3, 1.0))
        self.went_on.append(record.id)

    def overtake(self, kind: Kind, id: str) -> None:
        assert self._store.reconciliation.expire_lease(kind, id, "one")
        assert self._store.reconciliation.due(kind) == [id]
        assert self._store.claims.claim(kind, id, "two") is not None


@pytest.fixture
def overtaken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ids of the jobs that continued after another worker had claimed them."""
    monkeypatch.setattr(workers.child, "Learner", Overtaken)
    yield Overtaken.went_on
    Overtaken.went_on.clear()


def test_adaptation_ends_when_its_progress_is_refused(
    settings: Settings, sync_store: SyncStore, overtaken: list[str]
) -> None:
    child = Child(settings, sync_store, "adapt", "one")
    child.learner.register_shipped()
    id = asyncio.run(submit(settings, model_version=VERSION)).id
    adapt.run(child, id)
    assert overtaken == []
    assert (get(settings, id).state, get(settings, id).step) == ("adapting", 0)


def test_training_ends_when_its_progress_is_refused(
    settings: Settings, sync_store: SyncStore, overtaken: list[str]
) -> None:
    (settings.datasets_dir / "shapes").mkdir(parents=True)

    async def start(store: Store) -> None:
        id = (await store.trainings.create(owner="owner1", dataset="shapes", options={})).id
        await asyncio.to_thread(train.run, Child(settings, sync_store, "train", "one"), id)
        run = await store.trainings.get(id)
        assert (run.state, run.epoch) == ("running", 0)

    with_store(settings, start)
    assert overtaken == []


def test_client_reads_nothing_of_an_unexpected_error(
    settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers.child, "Learner", FakeLearner)
    child = Child(settings, sync_store, "adapt", "one")
    child.learner.register_shipped()
    id = asyncio.run(submit(settings, name="failing", model_version=VERSION)).id
    for _ in range(MAX_ATTEMPTS):
        adapt.run(child, id)
    record = get(settings, id)
    assert record.state == "failed"
    assert record.error == "an unexpected error occurred in the worker and was logged"
    assert "/secret/place" in caplog.text


def test_a_classifier_is_stored_once_however_often_its_commit_is_retried(
    settings: Settings, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.child, "Learner", FakeLearner)
    monkeypatch.setattr(claims, "RETRY_EVERY_S", 0)
    child = Child(settings, sync_store, "adapt", "one")
    child.learner.register_shipped()
    id = asyncio.run(submit(settings, model_version=VERSION)).id
    put = Objects.put
    stored: list[str] = []
    failures = [RedisConnectionError("refused")] * 3

    def noted(objects: Objects, name: str, data: bytes) -> None:
        stored.append(name)
        put(objects, name, data)

    def failing(redis: Any, call: Call) -> Any:
        if call.script.name == "commit_episode" and failures:
            raise failures.pop()
        return run(redis, call)

    monkeypatch.setattr(Objects, "put", noted)
    monkeypatch.setattr("app.store.claims.run", failing)
    adapt.run(child, id)
    assert (get(settings, id).state, len(stored), failures) == ("ready", 1, [])


class Clock:
    """A clock that only ``sleep`` advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_call_is_retried_while_redis_is_unavailable_and_its_error_raised_finally(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(claims, "time", clock)
    calls: list[float] = []

    def call() -> str:
        calls.append(clock.now)
        if clock.now < 10:
            raise RedisConnectionError("refused")
        return "done"

    assert claims.retrying(call, 20) == "done"
    assert len(calls) > 10
    clock.now = 0.0
    with pytest.raises(RedisConnectionError):
        claims.retrying(call, 5)
    assert 5 <= calls[-1] <= 6

    def wrong() -> None:
        calls.clear()
        calls.append(clock.now)
        raise KeyError("no lease")

    with pytest.raises(KeyError):
        claims.retrying(wrong)
    assert len(calls) == 1
