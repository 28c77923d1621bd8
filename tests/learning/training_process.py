"""A training run in a process of its own, for tests that kill it or let several train as one."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # an optimiser's first step imports it: here once, before processes are forked

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
BEGINS = b"."
RECIPE = brief_recipe(validate=False)


def run(
    data: Path,
    run_dir: Path,
    tell: Callable[[bytes], object] | None = None,
    die_writing: int | None = None,
) -> None:
    """Trains a miniature in short epochs, each with a checkpoint; leaves the model in ``run_dir``.

    ``tell`` is called with ``BEGINS`` as each task begins. ``die_writing``: killed by SIGKILL in the middle of writing
    this checkpoint, counted from 1.
    """
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()  # for good: the process is one of its own
    patch.setitem(PRESETS, "tiny", MINIATURE)
    if die_writing is not None:
        patch.setattr(os, "fsync", _dying(die_writing, os.fsync))

    def begins() -> bool:
        if tell is not None:
            tell(BEGINS)
        return False

    chosen = TrainingConfig.from_request(OPTIONS)
    with joined("cpu") as ranks:
        model = train(
            chosen,
            data,
            run_dir,
            device="cpu",
            on_progress=lambda told: None,
            should_stop=begins,
            ranks=ranks,
            recipe=RECIPE,
        )
    if ranks.first:
        write(model, run_dir)


def _dying(number: int, whole: Callable[[int], None]) -> Callable[[int], None]:
    """Writes files ``whole``, and of the checkpoint with this number the first half."""
    saved = 0

    def half(descriptor: int) -> None:
        nonlocal saved
        saved += Path(f"/proc/self/fd/{descriptor}").readlink().name.startswith(f".{checkpoint.FILE}.")
        if saved == number:
            os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        whole(descriptor)

    return half


if __name__ == "__main__":  # by torchrun; each process leaves a file beside the run of what it told
    data, run_dir = map(Path, sys.argv[1:])
    with run_dir.with_name(f"tasks-{os.environ['RANK']}").open("wb", buffering=0) as file:
        run(data, run_dir, file.write)
