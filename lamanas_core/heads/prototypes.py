"""Class means as a head for any number of classes (prototypical networks)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lamanas_core.config import TaskLearnerConfig
from lamanas_core.heads.base import Head, LossNetwork, Support
from lamanas_core.heads.distances import DistanceHead
from lamanas_core.losses.invariant import LearnedLoss
from lamanas_core.onnx_writer import OnnxWriter


@dataclass(frozen=True)
class FittedPrototypes(DistanceHead):
    """Logits from squared Euclidean distances to prototypes: -``scale`` * distance² / d up to a common term.

    ``scale``: a positive scalar.
    """

    scale: Tensor

    def distances(self, features: Tensor) -> Tensor:
        """Features (n, d) -> (n, ways): squared Euclidean distances to the prototypes, divided by d."""
        return features.square().mean(1)[:, None] - self.logits(features) / self.scale

    def distances_onnx(self, writer: OnnxWriter, features: str) -> str:
        squares = writer.node("Mul", [features, features])
        mean = writer.node("ReduceMean", [squares, writer.integers(1)], keepdims=1)
        return writer.node("Sub", [mean, writer.node("Mul", ["logits", writer.number(1 / float(self.scale))])])


class PrototypeHead(Head):
    """A head for any number of classes: logits from distances to class means (prototypical networks)."""

    leaves_one_out = True
    measures_novelty = True

    def layer(self, features: int) -> nn.Module | None:
        return None

    def classes(self) -> int | None:
        return None

    def support_logits(self, theta: Mapping[str, Tensor], support: Support, scale: Tensor | float) -> Tensor:
        return leave_one_out_logits(support.features, support.labels, support.ways, scale)

    def fit(self, theta: Mapping[str, Tensor], support: Support, scale: Tensor) -> FittedPrototypes:
        """-scale * ‖f - c‖² / d, up to a term common to all classes, as a linear layer: weight 2c * scale / d and bias
        -‖c‖² * scale / d for features f and prototypes c.
        """
        centres, sizes = class_means(support)
        per_feature = scale / centres.shape[1]
        weight, bias = 2 * per_feature * centres, -per_feature * centres.square().sum(1)
        return FittedPrototypes(weight, bias, sizes, scale)

    def loss_network(self, task: TaskLearnerConfig, generator: torch.Generator | None) -> LossNetwork:
        return LearnedLoss(task.loss, task.residual, task.hidden, generator)


def prototypes(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """The mean feature vector of each class: features (n, d), labels int64 (n,) -> (ways, d)."""
    counts = class_sizes(labels, ways).to(features)
    sums = features.new_zeros(ways, features.shape[1]).index_add(0, labels, features)
    return sums / counts[:, None]


def class_means(support: Support) -> tuple[Tensor, Tensor]:
    """The mean feature vector of each class, (ways, d), and the number of its images, (ways,): int64, or float with
    unlabelled images, which count by their shares.
    """
    sizes, unlabelled = class_sizes(support.labels, support.ways), support.unlabelled
    means = prototypes(support.features, support.labels, support.ways)
    if unlabelled is None:
        return means, sizes
    counted = sizes + unlabelled.shares.sum(0)
    return (sizes[:, None] * means + unlabelled.shares.T @ unlabelled.features) / counted[:, None], counted


def class_sizes(labels: Tensor, ways: int) -> Tensor:
    """The number of examples of each class: labels int64 (n,) -> int64 (ways,)."""
    return (labels[:, None] == torch.arange(ways, device=labels.device)).sum(0)


def leave_one_out_logits(features: Tensor, labels: Tensor, ways: int, scale: Tensor | float) -> Tensor:
    """Leave-one-out logits: features (n, d), labels int64 (n,) -> (n, ways).

    Each support image is compared with prototypes computed without it. The only image of a class is compared with its
    plain prototype, since the class would have none without it.
    """
    d = features.shape[1]
    centres = prototypes(features, labels, ways)
    plain = -(features.square().sum(1)[:, None] - 2 * features @ centres.T + centres.square().sum(1)) * (scale / d)
    counts = class_sizes(labels, ways).to(features)[labels]
    # Without the image, the prototype of its class is count / (count - 1) times as far from it; 1 for the only image.
    stretch = (counts / (counts - 1).clamp(min=1)).square()
    own = labels[:, None] == torch.arange(ways, device=labels.device)
    return torch.where(own, plain * stretch[:, None], plain)
