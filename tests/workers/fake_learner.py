"""Replaces the learner in the pool processes of ``tests.workers.fake_worker``.

The episode's name determines its behaviour: ``plain`` ends at once; ``blocked`` waits after its first step until the
test pushes to ``test:go``; ``gated`` waits there until the test writes to the pipe ``GATE`` in the data directory, for
which Redis is not needed; ``poison`` kills its process; ``stuck`` hangs in its first attempt and lets no other thread
run; ``unusable`` has unusable images; ``failing`` always fails.
"""

import ctypes
import errno
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from redis.backoff import ConstantBackoff
from redis.retry import Retry

import workers.child
from app.settings import Settings
from app.store import connections
from app.store.clients import SyncStore
from app.store.records import EpisodeRecord, TrainingRecord
from lamanas_core.genotype import Genotype
from workers.claims import StoppedError, retrying

GO = "test:go"
STARTED = "test:started"
TOGETHER = "test:together"
GATE = "gate"
VERSION = "fa4e" * 4
EPOCHS = 5
NO_CELLS = Genotype(normal=(), reduction=())


@dataclass(frozen=True)
class Suspect:
    row: int
    label: int
    likelier: int
    times: float


@dataclass(frozen=True)
class Adapted:
    artifact: bytes
    losses: tuple[float, ...]
    genotype: Genotype = NO_CELLS
    parameters_kept: int = 1
    parameters_total: int = 2
    support_accuracy: float = 1.0
    leave_one_out_accuracy: float | None = None
    unlabelled_belonging: float | None = 0.5
    suspects: tuple[Suspect, ...] = (Suspect(1, 0, 1, 20.5),)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    epoch: int
    epochs: int
    loss: float
    validation_accuracy: float | None = None
    warm_up_epochs: int = 0
    seconds: float = 0.0
    eta_seconds: float | None = None
    notes: tuple[str, ...] = ("1 skipped",)
    saved: bool = True


class FakeLearner:
    device = "cpu"

    def __init__(self, settings: Settings, store: SyncStore, threads: int) -> None:
        self._store = store
        self._gate = settings.data_dir / GATE
        self._most = settings.adapt_batch
        self._redis: Any = connections.blocking(settings)
        self._redis.set_retry(Retry(ConstantBackoff(0.02), 500))  # tests restart Redis
        self._redis.connection_pool.connection_kwargs["socket_timeout"] = None

    def register_shipped(self) -> None:
        self._store.models.register(VERSION, b"weights", {"config": {"image": {}, "steps": 3, "max_steps": 100}})

    def model(self, version: str) -> None:
        self._store.models.get(version)

    def adapt(
        self, record: EpisodeRecord, support: np.ndarray, labels: np.ndarray, on_step: Callable[[int, int, float], None]
    ) -> Adapted:
        retrying(lambda: self._redis.rpush(STARTED, f"{record.id} {os.getpid()}"))
        if record.name == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if record.name == "stuck" and record.attempts == 1:
            ctypes.PyDLL(None).pause()  # keeps the interpreter's lock
        if record.name == "unusable":
            raise ValueError("these images are all the same")
        if record.name == "failing":
            raise OSError(errno.ENOSPC, "No space left on device", "/secret/place")
        losses = []
        for step in range(1, record.steps + 1):
            losses.append(1 / step)
            on_step(step, record.steps, losses[-1])
            if step == 1 and record.name == "blocked":
                self._redis.blpop([GO])
            if step == 1 and record.name == "gated":
                self._gate.read_text()  # blocks until the other end has been opened and closed
        return Adapted(artifact=bytes(support[0, 0, 0, :4]) + bytes(labels.astype(np.uint8)), losses=tuple(losses))

    def most_together(self, record: EpisodeRecord) -> int:
        return self._most

    def adapt_together(
        self,
        records: Sequence[EpisodeRecord],
        supports: Sequence[tuple[np.ndarray, np.ndarray]],
        on_step: Callable[[int, int, list[float]], None],
    ) -> Iterator[Adapted]:
        """Each behaves as it does alone."""
        self._redis.rpush(TOGETHER, " ".join(record.id for record in records))
        told: dict[int, list[float]] = {}

        def on_step_of(record: EpisodeRecord) -> Callable[[int, int, float], None]:
            def on_step_of_one(step: int, steps: int, loss: float) -> None:
                told.setdefault(step, []).append(loss)
                if record is records[-1]:
                    on_step(step, steps, told[step])

            return on_step_of_one

        results = [
            self.adapt(record, *support, on_step_of(record)) for record, support in zip(records, supports, strict=True)
        ]
        yield from results

    def train(
        self,
        record: TrainingRecord,
        data: Path,
        run_dir: Path,
        on_progress: Callable[[Any], None],
        should_stop: Callable[[], bool],
    ) -> tuple[str, bytes, dict[str, Any]]:
        """Each of ``EPOCHS`` epochs ends when the test pushes to ``test:go``. A file counts them, for resuming."""
        done = run_dir / "epochs"
        epoch = int(done.read_text()) if done.exists() else 0
        self._redis.rpush(STARTED, f"{record.id} {os.getpid()}")
        while epoch < EPOCHS:
            while self._redis.blpop([GO], timeout=0.2) is None:
                if should_stop():
                    raise StoppedError
            epoch += 1
            done.write_text(str(epoch))
            on_progress(Progress(epoch, EPOCHS, 1 / epoch))
        return "7ea1" * 4, b"trained", {"config": {"image": {}}}


setattr(workers.child, "Learner", FakeLearner)  # noqa: B010 (the type checker knows it is not a Learner)
