"""Trainings of a second: a miniature network, epochs of a few steps, few episodes to validate on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lamanas_core.config import PRESETS, Config, TrainingConfig
from lamanas_core.data.folders import ImageClasses
from lamanas_core.measure import calibrate as calibration
from lamanas_core.measure.evaluate import Evaluation, EvaluationConfig, evaluate
from lamanas_core.meta_model import MetaModel
from lamanas_core.train import loop as training
from lamanas_core.train.loop import train
from tests.learning.helpers import MINIATURE

EPISODES = 3


@contextmanager
def brief_epochs(config: Config = MINIATURE, steps: int = 2) -> Iterator[None]:
    """Preset ``tiny`` is ``config``; a warm-up epoch has ``steps`` steps, and every epoch is validated and saved."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", config)
        patch.setattr(training, "STEPS_PER_EPOCH", steps)
        patch.setattr(training, "CHECKPOINT_EVERY", 1)
        patch.setattr(training, "VALIDATE_EVERY", {"warm_up": 1, "meta": 1})
        patch.setattr(training, "evaluate", _evaluate_briefly)
        patch.setattr(calibration, "EPISODES", EPISODES)
        yield
    torch.set_num_threads(threads)


def brief(**options: object) -> TrainingConfig:
    """Two epochs of each stage, on tasks of three classes and one image each; ``options`` laid over that."""
    small = {"preset": "tiny", "warm_up_epochs": 2, "meta_epochs": 2, "meta_batch": 2, "ways": 3, "shots": 1}
    return TrainingConfig(**(small | {"loss": "fnn"} | options))  # type: ignore[arg-type]


def trained(chosen: TrainingConfig, data: Path, run_dir: Path) -> MetaModel:
    """The model of an undisturbed training on the CPU."""
    return train(chosen, data, run_dir, device="cpu", on_progress=lambda told: None, should_stop=lambda: False)


def _evaluate_briefly(
    model: MetaModel, classes: ImageClasses, chosen: EvaluationConfig, told: Callable[[int], None]
) -> Evaluation:
    return evaluate(model, classes, replace(chosen, episodes=EPISODES), told)
