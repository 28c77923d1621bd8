"""Trainings of a second: a miniature network, epochs of a few steps, few episodes to validate on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lamanas_core.config import PRESETS, Config, TrainingConfig
from lamanas_core.meta_model import MetaModel
from lamanas_core.recipe import Recipe
from lamanas_core.train.loop import train
from tests.learning.helpers import MINIATURE

EPISODES = 3


@contextmanager
def miniature(config: Config = MINIATURE) -> Iterator[None]:
    """Preset ``tiny`` is ``config``, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", config)
        yield
    torch.set_num_threads(threads)


def brief(**options: object) -> TrainingConfig:
    """Two epochs of each stage, on tasks of three classes and one image each; ``options`` laid over that."""
    small = {"preset": "tiny", "warm_up_epochs": 2, "meta_epochs": 2, "meta_batch": 2, "ways": 3, "shots": 1}
    return TrainingConfig(**(small | {"loss": "fnn"} | options))  # type: ignore[arg-type]


def brief_recipe(steps: int = 2, *, validate: bool = True, save_every: int = 1) -> Recipe:
    """A warm-up epoch has ``steps`` steps; every epoch is validated, every ``save_every`` saved."""
    plain = Recipe()
    every = 1 if validate else 100
    schedule = replace(
        plain.schedule,
        warm_up_steps_per_epoch=steps,
        warm_up_epochs_per_validation=every,
        meta_epochs_per_validation=every,
        epochs_per_checkpoint=save_every,
        validation_episodes=EPISODES,
    )
    return replace(plain, schedule=schedule, calibration=replace(plain.calibration, episodes=EPISODES))


def trained(chosen: TrainingConfig, data: Path, run_dir: Path, steps: int = 2) -> MetaModel:
    """The model of an undisturbed training on the CPU, by the brief recipe."""
    return train(
        chosen,
        data,
        run_dir,
        device="cpu",
        on_progress=lambda told: None,
        should_stop=lambda: False,
        recipe=brief_recipe(steps),
    )
