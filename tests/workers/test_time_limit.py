"""The time limits of adaptations and epochs, in the process that works."""

import asyncio
import multiprocessing
import signal
from contextlib import suppress
from typing import Any

import pytest

import workers.child
from app.settings import Settings
from app.store.clients import Store, SyncStore
from app.store.objects import Objects
from app.store.records import EpisodeRecord, TrainingRecord
from tests.store.submitting import submit
from tests.store.test_async_store import with_store
from tests.waiting import PATIENCE_S
from tests.workers.fake_learner import VERSION, Adapted, FakeLearner, Progress
from workers import adapt, train
from workers.child import Child
from workers.time_limit import time_limit


def left() -> float:
    """Seconds until this process is ended; 0 without a limit."""
    return signal.getitimer(signal.ITIMER_REAL)[0]


def test_a_process_over_its_limit_is_ended_by_the_kernel() -> None:
    def hangs() -> None:
        with time_limit(0.01):
            signal.pause()

    process = multiprocessing.get_context("fork").Process(target=hangs)
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == -signal.SIGALRM


def test_the_limit_ends_with_the_block() -> None:
    with suppress(ValueError), time_limit(600):
        assert 0 < left() <= 600
        raise ValueError
    assert left() == 0


class Watched(FakeLearner):
    """Notes how much time is left: at the start, and after the end of an epoch for which little was left."""

    noted: list[float]

    def adapt(self, record: EpisodeRecord, *given: Any) -> Adapted:
        self.noted.append(left())
        return super().adapt(record, *given)

    def train(self, record: TrainingRecord, data: Any, run_dir: Any, on_progress: Any, should_stop: Any) -> Any:
        self.noted.append(left())
        signal.setitimer(signal.ITIMER_REAL, 100)
        on_progress(Progress(1, 1, 1.0))
        self.noted.append(left())
        return "7ea1" * 4, b"trained", {"config": {"image": {}}}


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setattr(workers.child, "Learner", Watched)
    monkeypatch.setattr(Watched, "noted", [], raising=False)
    return Watched.noted


def test_an_adaptation_has_its_limit_with_what_it_reads_and_stores(
    settings: Settings, sync_store: SyncStore, noted: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("get", "put"):
        call = getattr(Objects, name)

        def watched(*given: Any, call: Any = call) -> Any:
            noted.append(left())
            return call(*given)

        monkeypatch.setattr(Objects, name, watched)
    child = Child(settings.model_copy(update={"adapt_seconds": 300}), sync_store, "adapt", "one")
    child.learner.register_shipped()
    id = asyncio.run(submit(settings, model_version=VERSION)).id
    noted.clear()
    adapt.run(child, id)
    assert len(noted) == 3
    assert all(200 < seconds <= 300 for seconds in noted)
    assert left() == 0


def test_each_epoch_has_its_limit(settings: Settings, sync_store: SyncStore, noted: list[float]) -> None:
    (settings.datasets_dir / "shapes").mkdir(parents=True)
    changed = settings.model_copy(update={"epoch_seconds": 300})

    async def start(store: Store) -> None:
        id = (await store.trainings.create(owner="owner1", dataset="shapes", options={})).id
        await asyncio.to_thread(train.run, Child(changed, sync_store, "train", "one"), id)

    with_store(settings, start)
    assert len(noted) == 2
    assert all(200 < seconds <= 300 for seconds in noted)
    assert left() == 0
