"""Every accepted episode ends exactly once, whichever process is killed."""

import asyncio
import os
import signal
from typing import Any

import pytest

from app.store import keys
from app.store.clients import SyncStore
from tests.conftest import PrivateRedis
from tests.store.observing import classifier_of
from tests.store.submitting import get, submit
from tests.waiting import PATIENCE_S, until_gone
from tests.workers.conftest import Control, StartWorker
from tests.workers.fake_learner import GATE, VERSION
from tests.workers.fake_worker import DEAF


def submitted(server: PrivateRedis, name: str) -> str:
    SyncStore.open(server.settings).models.register(VERSION, b"weights", {"config": {"image": {}}})
    return asyncio.run(submit(server.settings, name=name, model_version=VERSION)).id


def until_state(control: Control, server: PrivateRedis, id: str, state: str) -> None:
    control.until(lambda: get(server.settings, id).state == state, f"episode {id} {state}")


def claims_of(server: PrivateRedis, id: str) -> int:
    """How often the episode was claimed."""
    return int(server.client.hget(keys.record("episode", id), "fence") or 0)


def test_episode_becomes_ready_with_its_losses_and_artifact(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    start_worker("adapt")
    id = submitted(redis_server, "plain")
    until_state(control, redis_server, id, "ready")
    record = get(redis_server.settings, id)
    assert (record.step, record.losses, record.attempts) == (3, (1.0, 1 / 2, 1 / 3), 1)
    assert (record.parameters_kept, record.support_accuracy, record.leave_one_out_accuracy) == (1, 1.0, None)
    assert record.unlabelled_belonging == 0.5
    assert [tuple(suspect) for suspect in record.suspects] == [(1, 0, 1, 20.5)]
    assert classifier_of(redis_server, id) == bytes([0, 1, 2, 3, 0, 0, 1, 1])


def test_episode_submitted_without_a_running_worker_is_adapted_by_the_next_one(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    id = submitted(redis_server, "plain")
    redis_server.client.delete(keys.broker_queue("episode"))  # its wake-up is lost
    start_worker("adapt")
    until_state(control, redis_server, id, "ready")


def test_worker_whose_acknowledgement_is_lost_receives_the_next_wake_up(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEAF, "1")
    start_worker("adapt")
    for _ in range(2):
        id = submitted(redis_server, "plain")
        until_state(control, redis_server, id, "ready")
        assert redis_server.client.llen(DEAF) == 1


def test_episode_of_a_killed_worker_is_finished_once_by_another(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    first = start_worker("adapt")
    id = submitted(redis_server, "blocked")
    assert control.started()[0] == id
    control.kill(first)
    start_worker("adapt")
    control.go()
    until_state(control, redis_server, id, "ready")
    assert (claims_of(redis_server, id), get(redis_server.settings, id).attempts) == (2, 2)


def test_episode_of_a_killed_pool_process_is_finished_once(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    start_worker("adapt")
    id = submitted(redis_server, "blocked")
    os.kill(control.started()[1], signal.SIGKILL)
    assert control.started()[0] == id
    control.go()
    until_state(control, redis_server, id, "ready")
    assert claims_of(redis_server, id) == 2


def test_late_result_of_a_suspended_worker_is_refused(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    first = start_worker("adapt")
    id = submitted(redis_server, "blocked")
    control.started()
    first.signal_all(signal.SIGSTOP)
    start_worker("adapt")
    assert control.started()[0] == id  # the second one, after the lease
    first.signal_all(signal.SIGCONT)
    control.go(2)
    until_state(control, redis_server, id, "ready")
    assert claims_of(redis_server, id) == 2
    first.process.terminate()
    assert first.process.wait(PATIENCE_S) == 0
    assert get(redis_server.settings, id).attempts == 2


def test_episode_that_kills_its_workers_fails_and_others_are_adapted(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    start_worker("adapt")
    poison, plain = submitted(redis_server, "poison"), submitted(redis_server, "plain")
    until_state(control, redis_server, poison, "failed")
    until_state(control, redis_server, plain, "ready")
    assert "died 3 times" in (get(redis_server.settings, poison).error or "")


def test_episode_whose_adaptation_hangs_is_adapted_by_another_process(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMANAS_ADAPT_SECONDS", "1")
    start_worker("adapt")
    id = submitted(redis_server, "stuck")
    until_state(control, redis_server, id, "ready")
    assert get(redis_server.settings, id).attempts == 2


def test_unusable_images_fail_at_once_with_a_message(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    start_worker("adapt")
    id = submitted(redis_server, "unusable")
    until_state(control, redis_server, id, "failed")
    record = get(redis_server.settings, id)
    assert (record.error, record.attempts) == ("these images are all the same", 1)


def test_running_adaptation_survives_a_restart_of_redis(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    start_worker("adapt")
    gate = redis_server.settings.data_dir / GATE
    os.mkfifo(gate)
    id = submitted(redis_server, "gated")
    control.started()
    redis_server.restart()
    gate.write_text("go")
    until_state(control, redis_server, id, "ready")
    assert (claims_of(redis_server, id), get(redis_server.settings, id).attempts) == (1, 1)
    other = submitted(redis_server, "plain")
    until_state(control, redis_server, other, "ready")


def test_terminated_worker_finishes_its_episode_and_leaves_no_process(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    worker = start_worker("adapt")
    id = submitted(redis_server, "blocked")
    control.started()
    family = worker.family()
    assert len(family) > 1
    worker.process.terminate()
    control.go()
    assert worker.process.wait(PATIENCE_S) == 0
    until_gone(family)
    assert get(redis_server.settings, id).state == "ready"


def test_pool_process_does_not_outlive_its_killed_parent(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    worker = start_worker("adapt")
    submitted(redis_server, "blocked")
    control.started()
    family = worker.family()
    worker.process.kill()
    worker.process.wait()
    until_gone(family)


def test_the_shipped_model_comes_back_when_redis_lost_everything(
    redis_server: PrivateRedis, start_worker: StartWorker, control: Control
) -> None:
    start_worker("adapt")
    id = submitted(redis_server, "plain")
    until_state(control, redis_server, id, "ready")
    # The worker's parent process has to know its record, which the pool process writes first, to send it again.
    client: Any = redis_server.client
    [(name, first)] = client.zrange(keys.workers("adapt"), 0, -1, withscores=True)
    control.until(lambda: client.zscore(keys.workers("adapt"), name) > first, "the heartbeat is renewed")
    client.flushall()
    active = {b"drawings": VERSION.encode()}
    control.until(lambda: client.hgetall(keys.ACTIVE_MODELS) == active, "the model is back")
    assert client.hget(keys.model(VERSION), "weights") == b"weights"
    until_state(control, redis_server, submitted(redis_server, "plain"), "ready")
