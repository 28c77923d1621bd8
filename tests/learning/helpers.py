"""Tiny meta-models and tasks, in float64 for comparisons of gradients."""

from dataclasses import replace

import numpy as np
import torch

from lamanas_core.adapt.inner import Step, TaskLearner, steps
from lamanas_core.adapt.parameters import Parameters, Tensors, initial_parameters
from lamanas_core.config import PRESETS, Config, NetworkConfig
from lamanas_core.data.episodes import Episode
from lamanas_core.data.sources.glyphs import draw, glyph_class, png
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import load

MINIATURE = Config(
    "tiny",
    NetworkConfig(ImageSpec(size=8), channels=2, nodes=2, cells=("normal", "reduction"), temperature=1.0),
    replace(PRESETS["tiny"].task_learner, hidden=3, theta_rate=0.1, alpha_rate=0.1, logit_scale=1.0),
)


def float64_learner(config: Config = MINIATURE, seed: int = 0) -> tuple[TaskLearner, Parameters]:
    """A task learner with a few hundred parameters in float64, for gradient checks by finite differences."""
    return TaskLearner.build(config), initial_parameters(config, seed).map(lambda tensor: tensor.double())


def float64_episode(seed: int = 0, ways: int = 3, shots: int = 2) -> Episode:
    """A task of random images, float64 (ways * shots, 1, 8, 8), with as many queries as support images."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(ways).repeat_interleave(shots)
    shape = (len(labels), 1, 8, 8)
    support, query = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return Episode(support, labels, query, labels, ways)


def first_step(
    learner: TaskLearner, parameters: Parameters, task: Episode, count: int = 1, dropping: torch.Generator | None = None
) -> Step:
    """The first of ``count`` inner steps, with its graph."""
    support, labels = task.support, task.support_labels
    return next(steps(learner, parameters, support, labels, task.ways, count, dropping=dropping, keep_graphs=True))


def with_shares(parameters: Parameters, shares: list[float], temperature: float = 1.0) -> Parameters:
    """``parameters`` with α such that the operations of every edge have these shares at this temperature."""
    alpha = dict(parameters.alpha)
    for kind in ("normal", "reduction"):
        old = alpha[f"{kind}.operations"]
        alpha[f"{kind}.operations"] = temperature * torch.tensor(shares).to(old).clamp(min=1e-9).log().repeat(
            len(old), 1
        )
    return replace(parameters, alpha=alpha)


def operations_in(theta: Tensors) -> set[int]:
    """The indices of the operations that have a non-zero value in ``theta`` in any cell."""
    return {int(name.split(".")[4]) for name, value in theta.items() if ".edges." in name and bool(value.any())}


def glyph_support(ways: int, shots: list[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``shots[i]`` preprocessed drawings of class i: images, uint8 (n, 1, 28, 28), and labels, int64 (n,)."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for label in range(ways):
        strokes = glyph_class(rng)
        for _ in range(shots[label]):
            images.append(load(png(draw(strokes, rng)), ImageSpec(), max_pixels=20_000))
            labels.append(label)
    return np.stack(images), np.array(labels)
