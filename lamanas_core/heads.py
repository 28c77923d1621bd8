"""Heads: they map features to logits.

A ``Head`` computes the logits of the support set during the inner loop, and afterwards fits a ``FittedHead`` to the
support set. To add a head, implement ``Head`` here or in a new file and register it in ``HEADS``.
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
NEAREST = 1e-9  # a lower bound on distances, whose logarithm is taken
LossNetwork = LearnedLoss | PaperLoss


@dataclass(frozen=True)
class FittedHead:
    """A linear layer fitted to one episode: ``weight`` (ways, d), ``bias`` (ways,)."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, ways)."""
        return torch.nn.functional.linear(features, self.weight, self.bias)

    def onnx(self, writer: OnnxWriter, features: str, calibration: Calibration) -> None:
        """Write the graph outputs ``logits`` and ``probabilities``, each (n, ways), for ``features`` (n, d)."""
        inputs = [features, writer.constant(array(self.weight)), writer.constant(array(self.bias))]
        writer.node("Gemm", inputs, output="logits", transB=1)
        writer.node("Softmax", ["logits"], output="probabilities", axis=1)


@dataclass(frozen=True)
class FittedPrototypes(FittedHead):
    """Logits from squared Euclidean distances to prototypes: -``scale`` * distance² / d up to a common term.

    ``scale``: a positive scalar; ``sizes``: the number of images of each prototype, int64 (ways,).
    """

    scale: Tensor
    sizes: Tensor

    def log_distance(self, features: Tensor, spread: float) -> Tensor:
        """Features (n, d) -> (n,): the logarithm of the squared distance / d to the nearest prototype, each divided by
        what is usual for the number of its images (see ``config.Novelty``).
        """
        distances = features.square().mean(1)[:, None] - self.logits(features) / self.scale
        return (distances / self._usual(spread)).amin(1).clamp(min=NEAREST).log()

    def onnx(self, writer: OnnxWriter, features: str, calibration: Calibration) -> None:
        """Also write the outputs ``novelty``, float (n,), and ``known``, bool (n,), if they are calibrated."""
        super().onnx(writer, features, calibration)
        novelty = calibration.novelty
        if novelty is None:
            return
        squares = writer.node("Mul", [features, features])
        mean = writer.node("ReduceMean", [squares, writer.integers(1)], keepdims=1)
        distances = writer.node("Sub", [mean, writer.node("Mul", ["logits", writer.number(1 / float(self.scale))])])
        relative = writer.node("Div", [distances, writer.constant(array(self._usual(novelty.spread)))])
        nearest = writer.node("ReduceMin", [relative, writer.integers(1)], keepdims=0)
        logarithm = writer.node("Log", [writer.node("Max", [nearest, writer.number(NEAREST)])])
        above = writer.node("Sub", [logarithm, writer.number(novelty.centre)])
        writer.node("Sigmoid", [writer.node("Mul", [above, writer.number(novelty.slope)])], output="novelty")
        writer.node("LessOrEqual", ["novelty", writer.number(novelty.threshold)], output="known")

    def _usual(self, spread: float) -> Tensor:
        return (1 + 1 / self.sizes).to(self.weight) ** spread


class Head(ABC):
    """Maps features (n, d) to logits. ``scale`` in its methods: the head's meta-learned scale, a scalar."""

    # Whether the support set's logits in the inner loop are leave-one-out: an image's own class is represented without
    # that image. For a head that is fitted to the support set, plain logits, and cross-entropy on them, are saturated.
    leaves_one_out: ClassVar[bool]
    # Whether its fitted head has a ``log_distance_ratio``.
    measures_novelty: ClassVar[bool]

    def __init__(self, network: NetworkConfig) -> None:
        self.network = network

    @abstractmethod
    def layer(self, features: int) -> nn.Module | None:
        """The module whose parameters belong to θ as ``head.<name>``, for ``features`` inputs; None if it has none."""

    @abstractmethod
    def classes(self) -> int | None:
        """The number of classes of meta-training tasks, which is also the maximum; None for any number of classes."""

    @abstractmethod
    def support_logits(
        self, theta: Mapping[str, Tensor], features: Tensor, labels: Tensor, ways: int, scale: Tensor | float
    ) -> Tensor:
        """The logits that L_φ takes in the inner loop: features (n, d), labels int64 (n,) -> (n, ways).

        A head with a fixed number of classes returns a column for each of them.
        """

    @abstractmethod
    def fit(
        self, theta: Mapping[str, Tensor], features: Tensor, labels: Tensor, ways: int, scale: Tensor
    ) -> FittedHead:
        """The head for ``ways`` classes, fitted to a support set's features (n, d) and labels int64 (n,)."""

    @abstractmethod
    def loss_network(self, task: TaskLearnerConfig, generator: torch.Generator | None) -> LossNetwork:
        """The loss network L_φ for this head, randomly initialised from ``generator``."""


class PrototypeHead(Head):
    """A head for any number of classes: logits from distances to class means (prototypical networks)."""

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
        """-scale * ‖f - c‖² / d, up to a term common to all classes, as a linear layer: weight 2c * scale / d and bias
        -‖c‖² * scale / d for features f and prototypes c.
        """
        centres = prototypes(features, labels, ways)
        per_feature = scale / features.shape[1]
        weight, bias = 2 * per_feature * centres, -per_feature * centres.square().sum(1)
        return FittedPrototypes(weight, bias, scale, class_sizes(labels, ways))

    def loss_network(self, task: TaskLearnerConfig, generator: torch.Generator | None) -> LossNetwork:
        return LearnedLoss(task.loss, task.residual, task.hidden, generator)


class LinearHead(Head):
    """The paper's head: a linear layer in θ for a fixed number of classes, ``NetworkConfig.ways``."""

    leaves_one_out = False
    measures_novelty = False

    def layer(self, features: int) -> nn.Module | None:
        return nn.Linear(features, self.network.ways)

    def classes(self) -> int | None:
        return self.network.ways

    def support_logits(
        self, theta: Mapping[str, Tensor], features: Tensor, labels: Tensor, ways: int, scale: Tensor | float
    ) -> Tensor:
        """Logits (n, ``NetworkConfig.ways``): all of the layer's columns, as the paper's loss networks require."""
        return FittedHead(theta[WEIGHT], theta[BIAS]).logits(features)

    def fit(
        self, theta: Mapping[str, Tensor], features: Tensor, labels: Tensor, ways: int, scale: Tensor
    ) -> FittedHead:
        return FittedHead(theta[WEIGHT][:ways], theta[BIAS][:ways])

    def loss_network(self, task: TaskLearnerConfig, generator: torch.Generator | None) -> LossNetwork:
        if task.loss == "cross_entropy":
            return LearnedLoss(task.loss, task.residual, task.hidden, generator)
        residual = task.residual_at if task.residual else "none"
        return PaperLoss(task.loss, residual, task.hidden, self.network.ways, generator)


HEADS: dict[str, type[Head]] = {"prototypes": PrototypeHead, "linear": LinearHead}


def make_head(network: NetworkConfig) -> Head:
    """The head named by ``network.head``. Raises ValueError if the name is unknown."""
    if network.head not in HEADS:
        raise ValueError(f"unknown head {network.head!r}; available: {', '.join(sorted(HEADS))}")
    return HEADS[network.head](network)


def prototypes(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """The mean feature vector of each class: features (n, d), labels int64 (n,) -> (ways, d)."""
    counts = class_sizes(labels, ways).to(features)
    sums = features.new_zeros(ways, features.shape[1]).index_add(0, labels, features)
    return sums / counts[:, None]


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
