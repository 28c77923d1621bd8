"""Episodes that are adapted together end as if each were adapted alone, whatever happens to one of them or to all."""

import asyncio
import signal
from functools import partial

import numpy as np
import pytest
import torch

from app.settings import Settings
from app.store import keys
from app.store.clients import Store, SyncStore
from lamanas_core.adapt.together import TOLERANCE
from lamanas_core.artifact import Classifier
from lamanas_core.image_spec import ImageKind
from lamanas_core.meta_model import MetaModel, shipped
from tests.conftest import PrivateRedis, test_settings
from tests.learning.helpers import glyph_support
from tests.store.observing import classifier_of
from tests.store.submitting import get, submit
from tests.waiting import PATIENCE_S
from tests.workers.conftest import Control, StartWorker
from tests.workers.fake_learner import TOGETHER
from tests.workers.test_adapt_worker import claims_of, submitted, until_state
from workers import adapt
from workers.child import Child
from workers.learner import Learner


@pytest.fixture(autouse=True)
def three_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMANAS_ADAPT_BATCH", "3")


def adapted_together(server: PrivateRedis) -> list[list[str]]:
    """The ids of the episodes of each batch so far."""
    found: list[bytes] = server.client.lrange(TOGETHER, 0, -1)  # type: ignore[assignment]
    return [ids.decode().split() for ids in found]


def attempts(server: PrivateRedis, ids: list[str]) -> list[int]:
    return [get(server.settings, id).attempts for id in ids]


def test_waiting_episodes_are_adapted_together_and_each_has_its_result(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    ids = [submitted(redis_server, "plain") for _ in range(4)]
    start_worker("adapt")
    for id in ids:
        until_state(control, redis_server, id, "ready")
        record = get(redis_server.settings, id)
        assert (record.step, record.losses, record.attempts) == (3, (1.0, 1 / 2, 1 / 3), 1)
        assert classifier_of(redis_server, id) == bytes([0, 1, 2, 3, 0, 0, 1, 1])
        assert claims_of(redis_server, id) == 1
    assert adapted_together(redis_server) == [ids[:3]]


def has_taken_a_step(server: PrivateRedis, id: str) -> bool:
    return get(server.settings, id).step == 1


def test_each_episode_shows_its_progress(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    ids = [submitted(redis_server, name) for name in ("plain", "blocked")]
    start_worker("adapt")
    for id in ids:
        control.until(partial(has_taken_a_step, redis_server, id), f"episode {id} has taken a step")
        assert get(redis_server.settings, id).losses == (1.0,)
    control.go()
    for id in ids:
        until_state(control, redis_server, id, "ready")


@pytest.mark.parametrize("name", ["poison", "failing", "stuck"])
def test_an_episode_that_ends_a_batch_costs_the_others_no_attempt(
    redis_server: PrivateRedis,
    start_worker: StartWorker,
    control: Control,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    if name == "stuck":
        monkeypatch.setenv("LAMANAS_ADAPT_SECONDS", "1")
    ids = [submitted(redis_server, each) for each in ("plain", name, "plain")]
    start_worker("adapt")
    for id, state in zip(ids, ("ready", "ready" if name == "stuck" else "failed", "ready"), strict=True):
        until_state(control, redis_server, id, state)
    assert adapted_together(redis_server) == [ids]
    assert attempts(redis_server, ids) == [1, 2 if name == "stuck" else 3, 1]
    assert [claims_of(redis_server, id) for id in (ids[0], ids[2])] == [2, 2]


def test_an_episode_that_is_deleted_meanwhile_does_not_end_the_others(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    ids = [submitted(redis_server, name) for name in ("blocked", "plain", "plain")]
    start_worker("adapt")
    assert control.started()[0] == ids[0]

    async def delete() -> None:
        store = await Store.open(redis_server.settings)
        await store.episodes.delete(ids[1])
        await store.close()

    asyncio.run(delete())
    control.go()
    for id in (ids[0], ids[2]):
        until_state(control, redis_server, id, "ready")
        assert claims_of(redis_server, id) == 1
    assert not redis_server.client.exists(keys.record("episode", ids[1]))
    assert not list(redis_server.settings.objects_dir.glob(f"classifiers/{ids[1]}*"))


def test_an_episode_whose_images_are_gone_fails_and_the_others_are_adapted(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    ids = [submitted(redis_server, "plain") for _ in range(3)]
    for file in redis_server.settings.objects_dir.glob(f"support/{ids[0]}*"):
        file.unlink()
    start_worker("adapt")
    for id, state in zip(ids, ("failed", "ready", "ready"), strict=True):
        until_state(control, redis_server, id, state)
    assert "not in the object store" in (get(redis_server.settings, ids[0]).error or "")
    assert adapted_together(redis_server) == [ids[1:]]


def test_episodes_of_a_killed_worker_are_finished_by_another_without_losing_an_attempt(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    first = start_worker("adapt")
    ids = [submitted(redis_server, name) for name in ("blocked", "plain", "plain")]
    assert control.started()[0] == ids[0]
    control.kill(first)
    start_worker("adapt")
    control.go()
    for id in ids:
        until_state(control, redis_server, id, "ready")
    assert attempts(redis_server, ids) == [1, 1, 1]


def test_late_results_of_a_suspended_worker_are_refused(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    ids = [submitted(redis_server, name) for name in ("blocked", "plain", "plain")]
    first = start_worker("adapt")
    assert control.started()[0] == ids[0]
    first.signal_all(signal.SIGSTOP)
    start_worker("adapt")
    assert control.started()[0] == ids[0]  # the second one, after the leases
    control.go(2)  # of which Redis gives one to the suspended worker
    for id in ids:
        until_state(control, redis_server, id, "ready")
    first.signal_all(signal.SIGCONT)
    first.process.terminate()
    assert first.process.wait(PATIENCE_S) == 0
    assert [claims_of(redis_server, id) for id in ids] == [2, 2, 2]
    stored = [file.name for file in redis_server.settings.objects_dir.glob("classifiers/*")]
    assert sorted(name.split(".")[:2] for name in stored) == [[id, "2"] for id in ids]


def test_the_shipped_model_gives_answers_together_as_alone(
    redis_server: PrivateRedis, sync_store: SyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = test_settings(redis_server.settings.data_dir)
    child = Child(settings, sync_store, "adapt", "one")
    child.__dict__["learner"] = Learner(settings, sync_store, torch.get_num_threads())
    child.learner.register_shipped()
    version = MetaModel.from_bytes(*shipped()).version

    def both() -> list[Classifier]:
        ids = []
        for seed in range(2):
            images, labels = glyph_support(3, [2, 3, 2], seed)
            of_one = {"support": images, "labels": labels.tolist(), "shots": [2, 3, 2], "classes": ["a", "b", "c"]}
            ids.append(asyncio.run(submit(settings, model_version=version, seed=seed, **of_one)).id)
        for id in ids:
            adapt.run(child, id)
        assert attempts(redis_server, ids) == [1, 1]
        records = [get(settings, id) for id in ids]
        judged.append([record.leave_one_out_accuracy for record in records])
        return [Classifier.from_bytes(classifier_of(redis_server, id) or b"") for id in ids]

    judged: list[list[float | None]] = []
    alone = both()
    monkeypatch.setattr(Learner, "most_together", lambda learner, record: 2)
    monkeypatch.setattr(Learner, "adapt", None)  # of one
    together = both()
    assert judged[0] == judged[1]
    queries, _ = glyph_support(3, [3] * 3, seed=9)
    for got, expected in zip(together, alone, strict=True):
        logits = expected.logits(queries)
        np.testing.assert_allclose(got.logits(queries), logits, rtol=0, atol=TOLERANCE * float(np.abs(logits).max()))


def test_only_a_gpu_adapts_drawings_together_and_only_those_that_fit_into_a_batch(
    settings: Settings, sync_store: SyncStore
) -> None:
    learner = Learner(settings.model_copy(update={"adapt_batch": 8}), sync_store, torch.get_num_threads())
    learner.register_shipped()
    versions = sync_store.models.active_versions()

    def most(kind: ImageKind, shots: int) -> int:
        record = asyncio.run(
            submit(
                settings,
                model_version=versions[kind],
                support=np.zeros((2 * shots, 1, 4, 4), np.uint8),
                labels=[0] * shots + [1] * shots,
                shots=[shots, shots],
            )
        )
        return learner.most_together(record)

    learner.device = "cpu"
    assert most("drawings", 2) == 1
    learner.device = "cuda"
    assert [most("drawings", 2), most("drawings", 126), most("photos", 2)] == [8, 1, 1]
