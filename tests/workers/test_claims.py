"""Work goes on only while its claim stands, and a claim stands while there is somebody to renew it."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from redis.exceptions import NoPermissionError

import workers.child
from app.settings import Settings
from app.store.async_store import Store
from app.store.keys import Kind
from app.store.records import EpisodeRecord, TrainingRecord
from app.store.sync_store import Beat, Claim, SyncStore
from tests.conftest import PrivateRedis
from tests.store.submitting import get, submit
from tests.store.test_async_store import with_store
from tests.waiting import PATIENCE_S
from tests.workers.fake_learner import VERSION, Adapted, FakeLearner, Progress
from workers import adapt, claims, train
from workers.child import Child
from workers.claims import Heartbeat


class Watched(SyncStore):
    """Says when a beat was refused, and when the worker was told to end."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.refused, self.draining = threading.Event(), threading.Event()

    def beat(self, claim: Claim) -> Beat:
        try:
            answer = super().beat(claim)
        except NoPermissionError:
            self.refused.set()
            raise
        if answer == "drain":
            self.draining.set()
        return answer


def test_beats_go_on_after_redis_refused_one(
    redis_server: PrivateRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.01)
    store = Watched.open(settings)
    id = asyncio.run(submit(settings)).id
    claim = store.claim("episode", id, "one")
    assert claim is not None
    with Heartbeat(store, claim):
        redis_server.client.acl_setuser("default", enabled=True, commands=["-evalsha"])
        assert store.refused.wait(PATIENCE_S)
        redis_server.client.acl_setuser("default", enabled=True, commands=["+evalsha"])
        store.drain("one", 60)
        assert store.draining.wait(PATIENCE_S)
    store.close()


class Overtaken(FakeLearner):
    """Another worker claims what this one works on, before any beat tells so; then this one tells its progress."""

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
        assert self._store.expire_lease(kind, id, "one")
        assert self._store.due(kind) == [id]
        assert self._store.claim(kind, id, "two") is not None


@pytest.fixture
def overtaken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ids of what was worked on after it was somebody else's."""
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
        id = (await store.create_training(owner="owner1", dataset="shapes", options={})).id
        await asyncio.to_thread(train.run, Child(settings, sync_store, "train", "one"), id)
        run = await store.get_training(id)
        assert (run.state, run.epoch) == ("running", 0)

    with_store(settings, start)
    assert overtaken == []
