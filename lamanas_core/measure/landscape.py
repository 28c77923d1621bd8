"""The learned loss as a surface over two directions of logits, for pictures like the paper's Figure 3.

A loss network is a function of logits, so that is where its surface is drawn: over θ it would mix φ with the network
that it steers, and two φ could only be compared where that network is the same. The directions are the first two
principal directions of the logits of one real support set, each example's classes turned so that the true one comes
first, and without the part common to all classes, which no loss sees. They are taken about the origin, where all
classes are alike, and not about the mean: so the first is the one that a loss is about, from "any class" to "this
one". At (a, b) every example of the support set is moved by a along the first and b along the second, and the loss of
the whole set is taken, since L_φ compares each example with the average of its task. Logits are the ones
that the K steps work on, at the first step.
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
from lamanas_core.image_spec import ImageSpec

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Landscape:
    """``learned[name]`` and ``entropy``: the losses at (a, b), rows along b; (0, 0) is the support set as it is.

    ``explained``: the share of the logits' squares along each of the two directions.
    """

    a: Array
    b: Array
    learned: dict[str, Array]
    entropy: Array
    explained: tuple[float, float]


def support_set(
    spec: ImageSpec, data: Path | None, split: dict[Split, list[str]] | None, ways: int, shots: int, seed: int
) -> tuple[Tensor, Tensor, int]:
    """Images, float (n, c, h, w), labels (n,) and how many classes: validation classes of ``data``, up to ``ways``, or
    made-up characters."""
    with tempfile.TemporaryDirectory() as made_up:
        if data is None:
            data, split = Path(made_up), None
            write_folders(data, 7 * ways, shots + 1, seed, colour=spec.channels == 3)  # 15 % of them are enough
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
    """The surfaces of every φ of ``phis`` (by name) around a support set, float (n, c, h, w), labels (n,)."""
    features, _ = learner.embed(parameters.theta, parameters.alpha, support)
    logits = learner.support_logits(parameters.theta, parameters.log_scale, features, labels, ways)
    directions, explained, reach = _plane(logits, labels)
    steps = torch.linspace(-reach, reach, points)
    moved = [[logits + a * directions[0] + b * directions[1] for a in steps] for b in steps]

    def loss_by(phi: Tensors) -> Callable[[Tensor], Tensor]:
        return lambda z: learner.learned_loss(phi, z, labels, 0.0)[0]

    learned = {name: _surface(moved, loss_by(phi)) for name, phi in phis.items()}
    entropy = _surface(moved, lambda z: F.cross_entropy(z, labels))
    return Landscape(steps.numpy(), steps.numpy(), learned, entropy, explained)


def _plane(logits: Tensor, labels: Tensor) -> tuple[list[Tensor], tuple[float, float], float]:
    """The two directions, each (n, ways) in the examples' own order of classes; their shares; how far to go."""
    ways = logits.shape[1]
    turned = (labels[:, None] + torch.arange(ways)) % ways
    own_first = logits.gather(1, turned)
    own_first = own_first - own_first.mean(1, keepdim=True)
    _, values, components = torch.linalg.svd(own_first, full_matrices=False)
    shares = values.square() / values.square().sum().clamp(min=1e-12)
    directions = []
    for component in components[:2]:
        # To the right and upwards: what is good for the true class.
        sign = 1.0 if component[0] >= 0 else -1.0
        directions.append(torch.zeros_like(logits).scatter(1, turned, (sign * component).expand_as(logits)))
    margin = float((own_first[:, 0] - own_first[:, 1:].amax(1)).abs().mean())
    reach = 1.5 * max(margin, float(values[0]) / len(logits) ** 0.5, 1.0)
    return directions, (float(shares[0]), float(shares[1])), reach


def _surface(moved: list[list[Tensor]], loss: Callable[[Tensor], Tensor]) -> Array:
    return np.array([[float(loss(z)) for z in row] for row in moved], dtype=np.float32)
