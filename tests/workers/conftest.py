"""Real workers with a real Redis, whose pools use a fake learner."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest

from app.store import keys
from app.store.records import Queue
from cli import tether
from tests.conftest import ROOT, PrivateRedis
from tests.waiting import PATIENCE_S, Changed, changes, family
from tests.workers.fake_learner import GO, STARTED

StartWorker = Callable[[Queue], "Worker"]


class Worker:
    """One worker, in a separate session."""

    def __init__(self, settings: Mapping[str, str], queue: Queue) -> None:
        environment = os.environ | settings | {"LAMANAS_DEVICE": "cpu"}
        command = tether.command(os.getpid(), [sys.executable, "-m", "tests.workers.fake_worker", queue])
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)

    def family(self) -> list[int]:
        """The ids of the process and all its descendants."""
        return family(self.process.pid)

    def signal_all(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal_all(signal.SIGKILL)
        self.process.wait()


class Control:
    """Controls the fake learners, and receives their messages."""

    def __init__(self, server: PrivateRedis, changed: Changed) -> None:
        self.redis = server.client
        self.until = changed.until

    def kill(self, worker: Worker) -> None:
        """Kills a worker whose fake learner waits. Until Redis notices, it is given what the next one waits for."""
        worker.kill()
        self.until(lambda: self.redis.info("clients")["blocked_clients"] == 0, "Redis has noticed it")

    def started(self) -> tuple[str, int]:
        """Waits until a fake learner starts a job; returns the job's id and the process id."""
        answer: Any = self.redis.blpop([STARTED], timeout=PATIENCE_S)
        assert answer, "no job was started"
        id, pid = answer[1].decode().split()
        return id, int(pid)

    def go(self, times: int = 1) -> None:
        self.redis.rpush(GO, *["go"] * times)


@pytest.fixture
def start_worker(redis_server: PrivateRedis) -> Iterator[StartWorker]:
    workers: list[Worker] = []
    # LAMANAS_DATA_DIR makes all workers of the test use the same folder for runs.
    environment = {
        "REDIS_URL": redis_server.settings.store_url,
        "LAMANAS_DATA_DIR": str(redis_server.settings.data_dir),
    }

    def start(queue: Queue) -> Worker:
        workers.append(Worker(environment, queue))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


@pytest.fixture
def control(redis_server: PrivateRedis) -> Iterator[Control]:
    with changes(redis_server.client, keys.CHANGES) as changed:
        yield Control(redis_server, changed)
