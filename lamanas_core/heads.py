"""From features to logits. A new head is a class here, or in a file of its own, and a line in ``HEADS``.

A ``Head`` says how logits come about while a network adapts, and fits a ``FittedHead`` to a support set at its end.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lamanas_core.config import Calibration, NetworkConfig, TaskLearnerConfig
from lamanas_core.losses.invariant import LearnedLoss
from lamanas_core.losses.paper import PaperLoss
from lamanas_core.onnx_writer import OnnxWriter, array

WEIGHT, BIAS = "head.weight", "head.bias"
NEAREST = 1e-9  # the least distance: its logarithm is taken
LossNetwork = LearnedLoss | PaperLoss


@dataclass(frozen=True)
class FittedHead:
    """A linear layer fitted to one episode: ``weight`` (ways, d), ``bias`` (ways,)."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, ways)."""
        return torch.nn.functional.linear(features, self.weight, self.bias)

    def log_distance_ratio(self, features: Tensor) -> Tensor | None:
        """(n, d) -> (n,): what novelty is read off, higher for images further from all classes; None where the head
        cannot tell."""
        return None

    def onnx(self, writer: OnnxWriter, features: str, calibration: Calibration) -> None:
        """Write the outputs ``logits`` and ``probabilities``."""
        inputs = [features, writer.constant(array(self.weight)), writer.constant(array(self.bias))]
        writer.node("Gemm", inputs, output="logits", transB=1)
        writer.node("Softmax", ["logits"], output="probabilities", axis=1)


@dataclass(frozen=True)
class FittedPrototypes(FittedHead):
    """Logits from squared distances to prototypes; ``scale``: what a squared distance / d counts in logits."""

    scale: Tensor

    def spread(self) -> Tensor:
        """A scalar: the mean squared distance / d of a prototype from the nearest other."""
        d = self.weight.shape[1]
        centres = self.weight * (d / 2 / self.scale)
        itself = torch.diag(torch.full((len(centres),), torch.inf)).to(centres)
        apart = (centres[:, None] - centres).square().mean(2) + itself
        return apart.amin(1).mean().clamp(min=NEAREST)

    def log_distance_ratio(self, features: Tensor) -> Tensor:
        """(n, d) -> (n,): log of the squared distance / d to the nearest prototype over ``spread``."""
        nearest = features.square().mean(1) - self.logits(features).amax(1) / self.scale
        return (nearest.clamp(min=NEAREST) / self.spread()).log()

    def onnx(self, writer: OnnxWriter, features: str, calibration: Calibration) -> None:
        """Write also the output ``novelty``: ``log_distance_ratio`` on the logistic curve of the calibration."""
        super().onnx(writer, features, calibration)
        squares = writer.node("Mul", [features, features])
        mean = writer.node("ReduceMean", [squares, writer.integers(1)], keepdims=0)
        best = writer.node("ReduceMax", ["logits", writer.integers(1)], keepdims=0)
        nearest = writer.node("Sub", [mean, writer.node("Mul", [best, writer.number(1 / float(self.scale))])])
        positive = writer.node("Max", [nearest, writer.number(NEAREST)])
        ratio = writer.node("Mul", [positive, writer.number(1 / float(self.spread()))])
        above = writer.node("Sub", [writer.node("Log", [ratio]), writer.number(calibration.novelty_centre)])
        steep = writer.node("Mul", [above, writer.number(calibration.novelty_slope)])
        writer.node("Sigmoid", [steep], output="novelty")


class Head(ABC):
    """How features become logits. ``scale``: the head's learned scale, a scalar."""

    # Whether the logits of the support set while adapting come of classes made without the image itself. Those of a
    # head that is made of the support set are saturated otherwise, and so is cross-entropy on it.
    leaves_one_out: ClassVar[bool]
    # Whether what it fits has a ``log_distance_ratio``.
    measures_novelty: ClassVar[bool]

    def __init__(self, network: NetworkConfig) -> None:
        self.network = network

    @abstractmethod
    def layer(self, features: int) -> nn.Module | None:
        """What of it is learned with θ, under the name ``head``; None where there is nothing."""

    @abstractmethod
    def classes(self) -> int | None:
        """How many classes it can have at most, and is meta-trained with; None for any number."""

    @abstractmethod
    def support_logits(
        self, theta: Mapping[str, Tensor], features: Tensor, labels: Tensor, ways: int, scale: Tensor | float
    ) -> Tensor:
        """The logits that L_φ is taken on while adapting: features (n, d), labels int64 (n,) -> (n, ways) or more."""

    @abstractmethod
    def fit(
        self, theta: Mapping[str, Tensor], features: Tensor, labels: Tensor, ways: int, scale: Tensor
    ) -> FittedHead:
        """The head for ``ways`` classes of a support set's features (n, d) with labels int64 (n,)."""

    @abstractmethod
    def loss_network(self, task: TaskLearnerConfig, generator: torch.Generator | None) -> LossNetwork:
        """φ's module that goes with it, at random from ``generator``."""


class PrototypeHead(Head):
    """Distances to class means: any number of classes."""

    leaves_one_out = True
    measures_novelty = True

    def layer(self, features: int) -> nn.Module | None:
        return None

    def classes(self) -> int | None:
        return None

    def support_logits(
        self, theta: Mapping[str, Tensor], features: Tensor, labels: Tensor, ways: int, scale: Tensor | float
    ) -> Tensor:
        return leave_one_out_logits(features, labels, ways, scale)

    def fit(
        self, theta: Mapping[str, Tensor], features: Tensor, labels: Tensor, ways: int, scale: Tensor
    ) -> FittedPrototypes:
        """-scale * ‖f - c‖² / d up to a term common to all classes: w = 2c, b = -‖c‖², times scale / d."""
        centres = prototypes(features, labels, ways)
        per_feature = scale / features.shape[1]
        return FittedPrototypes(2 * per_feature * centres, -per_feature * centres.square().sum(1), scale)

    def loss_network(self, task: TaskLearnerConfig, generator: torch.Generator | None) -> LossNetwork:
        return LearnedLoss(task.loss, task.residual, task.hidden, generator)


class LinearHead(Head):
    """The paper's: a layer of θ for ``ways`` classes."""

    leaves_one_out = False
    measures_novelty = False

    def layer(self, features: int) -> nn.Module | None:
        return nn.Linear(features, self.network.ways)

    def classes(self) -> int | None:
        return self.network.ways

    def support_logits(
        self, theta: Mapping[str, Tensor], features: Tensor, labels: Tensor, ways: int, scale: Tensor | float
    ) -> Tensor:
        """(n, all of the layer's): the paper's losses take as many, and no image is of a class that a task lacks."""
        return FittedHead(theta[WEIGHT], theta[BIAS]).logits(features)

    def fit(
        self, theta: Mapping[str, Tensor], features: Tensor, labels: Tensor, ways: int, scale: Tensor
    ) -> FittedHead:
        return FittedHead(theta[WEIGHT][:ways], theta[BIAS][:ways])

    def loss_network(self, task: TaskLearnerConfig, generator: torch.Generator | None) -> LossNetwork:
        if task.loss == "cross_entropy":
            return LearnedLoss(task.loss, task.residual, task.hidden, generator)
        return PaperLoss(task.loss, task.residual, task.hidden, self.network.ways, generator)


HEADS: dict[str, type[Head]] = {"prototypes": PrototypeHead, "linear": LinearHead}


def make_head(network: NetworkConfig) -> Head:
    """The head that the config names. Raises ValueError, which names those that there are."""
    if network.head not in HEADS:
        raise ValueError(f"no head is called {network.head!r}; there are {', '.join(sorted(HEADS))}")
    return HEADS[network.head](network)


def prototypes(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Mean feature of each class: features (n, d), labels int64 (n,) -> (ways, d)."""
    counts = class_sizes(labels, ways).to(features)
    sums = features.new_zeros(ways, features.shape[1]).index_add(0, labels, features)
    return sums / counts[:, None]


def class_sizes(labels: Tensor, ways: int) -> Tensor:
    """How many of the labels, int64 (n,), are of each class: int64 (ways,)."""
    return (labels[:, None] == torch.arange(ways, device=labels.device)).sum(0)


def leave_one_out_logits(features: Tensor, labels: Tensor, ways: int, scale: Tensor | float) -> Tensor:
    """Each support image against prototypes made without it, (n, ways).

    A class with one image keeps its plain prototype: without that image it would have none.
    """
    d = features.shape[1]
    centres = prototypes(features, labels, ways)
    plain = -(features.square().sum(1)[:, None] - 2 * features @ centres.T + centres.square().sum(1)) * (scale / d)
    counts = class_sizes(labels, ways).to(features)[labels]
    # Without the image itself its own prototype lies count / (count - 1) times as far away; 1 / 1 for the only image.
    stretch = (counts / (counts - 1).clamp(min=1)).square()
    own = labels[:, None] == torch.arange(ways, device=labels.device)
    return torch.where(own, plain * stretch[:, None], plain)
