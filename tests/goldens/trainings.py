"""Trainings of a few seconds, uninterrupted and interrupted, and digests of their final weights."""

import hashlib
from pathlib import Path
from typing import Any

from torch import Tensor

from lamanas_core.config import TrainingConfig
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.train.loop import TrainingStopped, train
from tests.learning.brief_training import brief_recipe, miniature
from tests.learning.helpers import MINIATURE

SMALL: dict[str, Any] = {"preset": "tiny", "meta_batch": 2, "ways": 3, "shots": 2}
RUNS: dict[str, dict[str, Any]] = {
    "algorithm 1": SMALL | {"warm_up_epochs": 3, "meta_epochs": 3},
    "algorithm 2": SMALL | {"warm_up_epochs": 1, "meta_epochs": 2, "meta": "reptile"},
}
# The number of tasks after which each attempt is interrupted: before the first checkpoint, and within an epoch of
# either stage.
STOPS = {"algorithm 1": (1, 3, 7), "algorithm 2": (1, 3)}


def write_data(folder: Path) -> None:
    """Write the data set of all trainings."""
    write_folders(folder, classes=14, images=6, seed=0)


def weights(name: str, data: Path, run_dir: Path, stops: tuple[int, ...] = ()) -> dict[str, Tensor]:
    """The final weights of the training ``name``, interrupted after each number of tasks in ``stops`` and resumed."""
    for stop in stops:
        remaining = iter(range(stop))
        try:
            _train(name, data, run_dir, lambda remaining=remaining: next(remaining, None) is None)
        except TrainingStopped:
            continue
        raise AssertionError(f"the training ended before {stop} tasks")
    return _train(name, data, run_dir, lambda: False)


def _train(name: str, data: Path, run_dir: Path, should_stop: Any) -> dict[str, Tensor]:
    with miniature(MINIATURE):
        config = TrainingConfig.from_request(RUNS[name])
        model = train(
            config,
            data,
            run_dir,
            device="cpu",
            on_progress=lambda progress: None,
            should_stop=should_stop,
            recipe=brief_recipe(),
        )
    return {name: value.contiguous().clone() for name, value in model.parameters.named().items()}


def digest(tensors: dict[str, Tensor]) -> str:
    """The SHA-256 of names and values, as hexadecimal digits: equal for equal bits under equal names."""
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()
