"""Trainings of about a second: a miniature network, epochs of a few steps, and few validation episodes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lamanas_core.config import PRESETS, Config, TrainingConfig
from lamanas_core.meta_model import MetaModel
from lamanas_core.recipe import CalibrationEpisodes, Recipe
from lamanas_core.train.loop import train
from tests.learning.helpers import MINIATURE

EPISODES = 2
# With two of the four operations, a task takes half the time.
SMALLEST = replace(MINIATURE, network=replace(MINIATURE.network, operations=("skip", "conv_3x3")))
# Calibration's episodes: one of each of two numbers of shots.
CALIBRATION = CalibrationEpisodes(episodes=1, shots=2, novelty_shots=(1,))


@contextmanager
def miniature(config: Config = SMALLEST) -> Iterator[None]:
    """A context in which the preset ``tiny`` is ``config`` and torch uses one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", config)
        yield
    torch.set_num_threads(threads)


def brief(**options: object) -> TrainingConfig:
    """Two epochs of each stage on 3-way 1-shot tasks, overridden by ``options``."""
    small = {"preset": "tiny", "warm_up_epochs": 2, "meta_epochs": 2, "meta_batch": 2, "ways": 3, "shots": 1}
    return TrainingConfig(**(small | {"loss": "fnn"} | options))  # type: ignore[arg-type]


def brief_recipe(steps: int = 2, *, validate: bool = True, save_every: int = 1) -> Recipe:
    """The default recipe with ``steps`` steps per warm-up epoch, a validation after every epoch if ``validate``, and a
    checkpoint every ``save_every`` epochs.
    """
    default = Recipe()
    interval = 1 if validate else 100
    schedule = replace(
        default.schedule,
        warm_up_steps_per_epoch=steps,
        warm_up_epochs_per_validation=interval,
        meta_epochs_per_validation=interval,
        epochs_per_checkpoint=save_every,
        validation_episodes=EPISODES,
    )
    return replace(default, schedule=schedule, calibration=CALIBRATION)


def trained(config: TrainingConfig, data: Path, run_dir: Path, steps: int = 2, *, validate: bool = False) -> MetaModel:
    """The model of an uninterrupted training on the CPU with the brief recipe."""
    return train(
        config,
        data,
        run_dir,
        device="cpu",
        on_progress=lambda progress: None,
        should_stop=lambda: False,
        recipe=brief_recipe(steps, validate=validate),
    )
