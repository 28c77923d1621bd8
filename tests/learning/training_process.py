"""A training run in its own process, for tests that kill it or train with several processes."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # the first step of an optimiser imports it; imported once here, before processes are forked

from lamanas_core.config import PRESETS, TrainingConfig
from lamanas_core.meta.gradient import MetaGradient
from lamanas_core.meta_model import write
from lamanas_core.train import checkpoint, loop
from lamanas_core.train.distributed import joined
from lamanas_core.train.loop import train
from tests.learning.brief_training import SMALLEST, brief_recipe

OPTIONS: dict[str, Any] = {
    "preset": "tiny",
    "warm_up_epochs": 2,
    "warm_up_batch": 2,
    "meta_epochs": 2,
    "meta_batch": 3,
    "ways": 3,
    "shots": 1,
}
TASK_STARTED = b"."
RECIPE = brief_recipe(validate=False)


def run(
    data: Path,
    run_dir: Path,
    report: Callable[[bytes], object] | None = None,
    die_writing: int | None = None,
    infinite: bool = False,
) -> None:
    """Train a miniature in short epochs, each with a checkpoint, and write the model to ``run_dir``.

    ``report`` is called with ``TASK_STARTED`` at the start of each task. ``die_writing``: the process is killed by
    SIGKILL in the middle of writing this checkpoint, counted from 1. ``infinite``: the meta-gradients of about a third
    of the tasks are infinite.
    """
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()  # never undone: the process runs nothing else
    patch.setitem(PRESETS, "tiny", SMALLEST)
    if die_writing is not None:
        patch.setattr(os, "fsync", _killing_fsync(die_writing, os.fsync))

    if infinite:
        patch.setattr(loop, "_gradient", _sometimes_infinite(loop._gradient))

    def task_started() -> bool:
        if report is not None:
            report(TASK_STARTED)
        return False

    config = TrainingConfig.from_request(OPTIONS)
    with joined("cpu") as ranks:
        model = train(
            config,
            data,
            run_dir,
            device="cpu",
            on_progress=lambda progress: None,
            should_stop=task_started,
            ranks=ranks,
            recipe=RECIPE,
        )
    if ranks.first:
        write(model, run_dir)


def run_as(rank: int, size: int, port: int, data: Path, run_dir: Path, infinite: bool) -> None:
    """``run`` as the process ``rank`` of ``size`` that share a training, as torchrun would start it."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    run(data, run_dir, infinite=infinite)


def _sometimes_infinite(gradient: Callable[..., MetaGradient]) -> Callable[..., MetaGradient]:
    """``gradient`` of ``loop._gradient``, but infinite for every third seed of a task."""

    def changed(source: object, learner: object, run: object, seed: int, warmed: float | None) -> MetaGradient:
        found = gradient(source, learner, run, seed, warmed)
        if seed % 3 == 0:
            next(iter(found.gradients.values())).fill_(torch.inf)
        return found

    return changed


def _killing_fsync(number: int, fsync: Callable[[int], None]) -> Callable[[int], None]:
    """``fsync``, but for the checkpoint with this number it truncates the file to one half and kills the process."""
    saved = 0

    def killing(descriptor: int) -> None:
        nonlocal saved
        saved += Path(f"/proc/self/fd/{descriptor}").readlink().name.startswith(f".{checkpoint.FILE}.")
        if saved == number:
            os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    return killing


if __name__ == "__main__":  # under torchrun: each process records its tasks in a file next to the run folder
    data, run_dir = map(Path, sys.argv[1:3])
    with run_dir.with_name(f"tasks-{os.environ['RANK']}").open("wb", buffering=0) as file:
        run(data, run_dir, file.write)
