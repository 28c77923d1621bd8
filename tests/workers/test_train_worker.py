"""A training run finishes once and registers one model, however often its worker is killed."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from app.settings import Settings
from app.store import keys
from app.store.clients import Store, SyncStore
from app.store.records import TrainingRecord
from lamanas_core import layout
from lamanas_core.data.sources.glyphs import write_folders
from tests.conftest import PrivateRedis
from tests.waiting import PATIENCE_S
from tests.workers.conftest import Control, StartWorker
from tests.workers.fake_learner import EPOCHS
from workers.train import dataset_folder

Result = TypeVar("Result")


def with_store(settings: Settings, body: Callable[[Store], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        store = await Store.open(settings)
        try:
            return await body(store)
        finally:
            await store.close()

    return asyncio.run(run())


@pytest.fixture
def run_id(redis_server: PrivateRedis) -> str:
    settings = redis_server.settings
    (settings.datasets_dir / "shapes").mkdir(parents=True)
    return with_store(settings, lambda store: store.trainings.create(owner="o", dataset="shapes", options={})).id


def get(server: PrivateRedis, id: str) -> TrainingRecord:
    return with_store(server.settings, lambda store: store.trainings.get(id))


def until(control: Control, server: PrivateRedis, id: str, holds: Callable[[TrainingRecord], bool], what: str) -> None:
    control.until(lambda: holds(get(server, id)), what)


def test_run_finishes_and_registers_one_model(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control, run_id: str
) -> None:
    start_worker("train")
    control.go(EPOCHS)
    until(control, redis_server, run_id, lambda run: run.state == "finished", "run finished")
    run = get(redis_server, run_id)
    assert (run.epoch, run.epochs, run.losses[-1]) == (EPOCHS, EPOCHS, 1 / EPOCHS)
    assert run.warnings == ("1 skipped",)
    models = with_store(redis_server.settings, lambda store: store.models.all())
    assert [model.version for model in models] == [run.model_version]


def test_run_of_a_killed_worker_continues_from_its_last_epoch(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control, run_id: str
) -> None:
    first = start_worker("train")
    control.started()
    control.go(2)
    until(control, redis_server, run_id, lambda run: run.epoch >= 1, "first epoch")
    epochs = redis_server.settings.runs_dir / run_id / "epochs"
    control.until(lambda: epochs.read_text() == "2", "second epoch done")
    control.kill(first)
    start_worker("train")
    control.go(EPOCHS - 2)
    until(control, redis_server, run_id, lambda run: run.state == "finished", "run finished")
    assert len(with_store(redis_server.settings, lambda store: store.models.all())) == 1
    losses = get(redis_server, run_id).losses
    assert (losses[0], losses[-1]) == (1, 1 / EPOCHS)


def test_run_whose_epoch_hangs_is_continued_by_another_process(
    redis_server: PrivateRedis,
    start_worker: StartWorker,
    control: Control,
    run_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAMANAS_EPOCH_SECONDS", "2")
    start_worker("train")
    _, first = control.started()
    control.go()
    assert control.started()[1] != first  # nobody lets the second epoch go on
    control.go(EPOCHS - 1)
    until(control, redis_server, run_id, lambda run: run.state == "finished", "run finished")
    assert get(redis_server, run_id).epoch == EPOCHS


def test_terminated_worker_hands_its_run_back_uncounted(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control, run_id: str
) -> None:
    first = start_worker("train")
    control.started()
    first.process.terminate()
    assert first.process.wait(PATIENCE_S) == 0
    run = get(redis_server, run_id)
    assert (run.state, run.attempts) == ("queued", 0)
    start_worker("train")
    control.go(EPOCHS)
    until(control, redis_server, run_id, lambda run: run.state == "finished", "run finished")


def test_running_run_is_cancelled_and_resumed(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control, run_id: str
) -> None:
    start_worker("train")
    control.started()
    with_store(redis_server.settings, lambda store: store.trainings.cancel(run_id))
    until(control, redis_server, run_id, lambda run: run.state == "cancelled", "run cancelled")
    with_store(redis_server.settings, lambda store: store.trainings.resume(run_id))
    control.go(EPOCHS)
    until(control, redis_server, run_id, lambda run: run.state == "finished", "run finished")


def test_dataset_is_a_folder_directly_below_datasets(redis_server: PrivateRedis, sync_store: SyncStore) -> None:
    settings = redis_server.settings
    (settings.datasets_dir / "shapes").mkdir(parents=True)
    (settings.data_dir / "secret").mkdir()
    assert dataset_folder(settings, sync_store, "shapes") == settings.datasets_dir / "shapes"
    for name in ("../secret", "..", ".", "", "shapes/../shapes", str(settings.data_dir / "secret"), "other"):
        with pytest.raises(ValueError, match="available: shapes"):
            dataset_folder(settings, sync_store, name)


def test_a_worker_on_another_machine_unpacks_the_data_set_and_continues_from_the_checkpoint(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control, sync_store: SyncStore, tmp_path: Path
) -> None:
    settings = redis_server.settings
    source = tmp_path / "shapes"
    write_folders(source, classes=2, images=2, seed=1)
    sync_store.folders.put_dataset("shapes", source, tmp_path)
    id = with_store(settings, lambda store: store.trainings.create(owner="o", dataset="shapes", options={})).id
    first = start_worker("train")
    control.started()
    control.go(2)
    checkpoints: Any = redis_server.client
    control.until(lambda: b".2." in (checkpoints.hget(keys.CHECKPOINTS, id) or b""), "second epoch stored")
    control.kill(first)
    (settings.unpacked_datasets_dir).rename(tmp_path / "unpacked")
    (settings.runs_dir / id).rename(tmp_path / "run")  # the other machine's disk is empty
    start_worker("train")
    control.go(EPOCHS - 2)
    until(control, redis_server, id, lambda run: run.state == "finished", "run finished")
    losses = get(redis_server, id).losses
    assert (losses[0], losses[-1]) == (1, 1 / EPOCHS)
    [folder] = settings.unpacked_datasets_dir.glob("*/shapes")
    assert layout.listing(folder) == layout.listing(source)
    # Nobody resumes a run that has finished.
    assert [path.name for path in (settings.objects_dir / "checkpoints").iterdir()] == []
