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
from lamanas_core.meta_model import write
from lamanas_core.train import checkpoint
from lamanas_core.train.distributed import joined
from lamanas_core.train.loop import train
from tests.learning.brief_training import brief_recipe
from tests.learning.helpers import MINIATURE

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
) -> None:
    """Train a miniature in short epochs, each with a checkpoint, and write the model to ``run_dir``.

    ``report`` is called with ``TASK_STARTED`` at the start of each task. ``die_writing``: the process is killed by
    SIGKILL in the middle of writing this checkpoint, counted from 1.
    """
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()  # never undone: the process runs nothing else
    patch.setitem(PRESETS, "tiny", MINIATURE)
    if die_writing is not None:
        patch.setattr(os, "fsync", _killing_fsync(die_writing, os.fsync))

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
    data, run_dir = map(Path, sys.argv[1:])
    with run_dir.with_name(f"tasks-{os.environ['RANK']}").open("wb", buffering=0) as file:
        run(data, run_dir, file.write)
