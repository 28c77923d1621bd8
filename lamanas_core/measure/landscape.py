"""The learned loss as a surface over two directions in the space of logits, for plots like the paper's Figure 3.

A loss network is a function of logits, so its surface is plotted over logits. Over θ it would also depend on the
network, and two φ could only be compared for the same network.

The two directions are principal directions of the logits of one support set, as the K inner steps see them at the first
step. Each example's classes are rotated so that the true class comes first, and the mean over its classes is
subtracted, since cross-entropy does not depend on it. The principal directions are computed about the origin, where all
classes are equal, instead of about the mean, so that the first one leads from "no class preferred" to "the true class".
At (a, b) the logits of every example are moved by a along the first and by b along the second direction, and the loss
of the whole support set is computed, since L_φ relates each example to the average of its task.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters, Tensors
from lamanas_core.data.episodes import sample_episode, to_float
from lamanas_core.data.folders import load_dataset
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.data.splits import Split
from lamanas_core.heads.base import Support
from lamanas_core.image_spec import ImageSpec

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Landscape:
    """Loss surfaces on a grid.

    ``a`` and ``b``: the coordinates, float32 (points,). ``learned[name]`` and ``entropy``: L_φ of each φ and
    cross-entropy, float32 (points, points), indexed [b, a]; (0, 0) is the support set itself. ``explained``: the
    fraction (0..1) of the logits' sum of squares along each direction.
    """

    a: Array
    b: Array
    learned: dict[str, Array]
    entropy: Array
    explained: tuple[float, float]


def support_set(
    spec: ImageSpec, data: Path | None, split: dict[Split, list[str]] | None, ways: int, shots: int, seed: int
) -> tuple[Tensor, Tensor, int]:
    """A support set: images, float (n, c, h, w) in 0..1, labels, int64 (n,), and the number of classes.

    It has up to ``ways`` validation classes of the data set ``data`` split by ``split``, or of synthetic glyphs if
    ``data`` is None. Raises DatasetError.
    """
    with tempfile.TemporaryDirectory() as glyphs:
        if data is None:
            data, split = Path(glyphs), None
            # The validation split has 15 % of the classes.
            write_folders(data, 7 * ways, shots + 1, seed, colour=not spec.drawings)
        classes = load_dataset(data, spec, split=split)["val"]
    episode = sample_episode(classes, min(ways, len(classes)), shots, 1, torch.Generator().manual_seed(seed))
    return to_float(episode.support), episode.support_labels, episode.ways


@torch.no_grad()
def loss_landscape(
    learner: TaskLearner,
    parameters: Parameters,
    phis: Mapping[str, Tensors],
    support: Tensor,
    labels: Tensor,
    ways: int,
    *,
    points: int = 21,
) -> Landscape:
    """The loss surfaces of every φ in ``phis``, by name, around a support set.

    ``support``: float (n, c, h, w) in 0..1; ``labels``: int64 (n,) in 0..``ways``-1; ``points``: per direction.
    """
    features, _ = learner.embed(parameters.theta, parameters.alpha, support)
    logits = learner.support_logits(parameters.theta, parameters.log_scale, Support(features, labels, ways))
    directions, explained, reach = _plane(logits, labels)
    steps = torch.linspace(-reach, reach, points)
    moved = [[logits + a * directions[0] + b * directions[1] for a in steps] for b in steps]

    def loss_by(phi: Tensors) -> Callable[[Tensor], Tensor]:
        return lambda z: learner.learned_loss(phi, z, labels, 0.0)[0]

    learned = {name: _surface(moved, loss_by(phi)) for name, phi in phis.items()}
    entropy = _surface(moved, lambda z: F.cross_entropy(z, labels))
    return Landscape(steps.numpy(), steps.numpy(), learned, entropy, explained)


def _plane(logits: Tensor, labels: Tensor) -> tuple[list[Tensor], tuple[float, float], float]:
    """The two directions, each (n, ways) in the original order of classes, their explained fractions, and the extent
    of the grid.
    """
    ways = logits.shape[1]
    rotated = (labels[:, None] + torch.arange(ways)) % ways
    true_first = logits.gather(1, rotated)
    true_first = true_first - true_first.mean(1, keepdim=True)
    _, values, components = torch.linalg.svd(true_first, full_matrices=False)
    shares = values.square() / values.square().sum().clamp(min=1e-12)
    directions = []
    for component in components[:2]:
        # The true class's logit increases to the right and upwards.
        sign = 1.0 if component[0] >= 0 else -1.0
        directions.append(torch.zeros_like(logits).scatter(1, rotated, (sign * component).expand_as(logits)))
    margin = float((true_first[:, 0] - true_first[:, 1:].amax(1)).abs().mean())
    reach = 1.5 * max(margin, float(values[0]) / len(logits) ** 0.5, 1.0)
    return directions, (float(shares[0]), float(shares[1])), reach


def _surface(moved: list[list[Tensor]], loss: Callable[[Tensor], Tensor]) -> Array:
    return np.array([[float(loss(z)) for z in row] for row in moved], dtype=np.float32)
