"""What a head is.

A ``Head`` computes the logits of the support set during the inner loop, and afterwards fits a ``FittedHead`` to the
support set.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from lamanas_core.config import NetworkConfig, TaskLearnerConfig
from lamanas_core.losses.invariant import LearnedLoss
from lamanas_core.losses.paper import PaperLoss
from lamanas_core.onnx_writer import OnnxWriter, array

LossNetwork = LearnedLoss | PaperLoss
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Unlabelled:
    """Images without a label, for a head that is fitted with them as well.

    ``features``: float (m, d). ``shares``: float (m, ways), how much of each image counts for each class; a row's sum
    is at most 1, and less for an image that may belong to none of them.
    """

    features: Tensor
    shares: Tensor


@dataclass(frozen=True)
class Support:
    """What a head sees of a support set.

    ``features``: of its images, float (n, d). ``labels``: int64 (n,) in 0..``ways``-1. ``crops``: the features of v
    crops of each image, (n, v, d), for a head that learns from them. ``unlabelled``: images without a label
    that count as well; a head that is not fitted to the support set ignores them.
    """

    features: Tensor
    labels: Tensor
    ways: int
    crops: Tensor | None = None
    unlabelled: Unlabelled | None = None


@dataclass(frozen=True)
class FittedHead:
    """A linear layer fitted to one episode: ``weight`` (ways, d), ``bias`` (ways,)."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, ways)."""
        return torch.nn.functional.linear(features, self.weight, self.bias)

    def onnx(self, writer: OnnxWriter, features: str) -> None:
        """Write the graph outputs ``logits`` and ``probabilities``, each (n, ways), for ``features`` (n, d)."""
        inputs = [self.layer_input(writer, features), self.weight_onnx(writer), writer.constant(array(self.bias))]
        writer.node("Gemm", inputs, output="logits", transB=1)
        writer.node("Softmax", ["logits"], output="probabilities", axis=1)

    def stored(self) -> Self:
        """This head as the graph that ``onnx`` writes has it, if that stores some of it with fewer bits."""
        return self

    def weight_onnx(self, writer: OnnxWriter) -> str:
        """Write the weight and return its name."""
        return writer.constant(array(self.weight))

    def layer_input(self, writer: OnnxWriter, features: str) -> str:
        """Write what the linear layer takes, for ``features`` (n, d), and return its name: here, the features."""
        return features


class Head(ABC):
    """Maps features (n, d) to logits. ``scale`` in its methods: the head's meta-learned scale, a scalar."""

    # Whether the support set's logits in the inner loop are leave-one-out: an image's own class is represented without
    # that image. For a head that is fitted to the support set, plain logits, and cross-entropy on them, are saturated.
    leaves_one_out: ClassVar[bool]
    # Whether its fitted head is a ``DistanceHead``.
    measures_novelty: ClassVar[bool]

    # The initial value of the head's scale.
    initial_scale: ClassVar[float] = 10.0

    def __init__(self, network: NetworkConfig) -> None:
        self.network = network

    @abstractmethod
    def layer(self, features: int) -> nn.Module | None:
        """The module whose parameters belong to θ as ``head.<name>``, for ``features`` inputs; None if it has none."""

    @abstractmethod
    def classes(self) -> int | None:
        """The number of classes of meta-training tasks, which is also the maximum; None for any number of classes."""

    def compared(self, theta: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """Features (n, d) as vectors (n, d) whose Euclidean distances the head's answers follow."""
        return features

    def prior_of(self, sets: Sequence[tuple[Tensor, Tensor]]) -> Tensors:
        """The parameters in θ that are known from data sets before a training, by name; none by default.

        ``sets``: of each data set the features, float (n, d), and their labels, int64 (n,).
        """
        return {}

    def stored(self, theta: Tensors) -> Tensors:
        """θ as the graph of a fitted head has it, if that stores some of it with fewer bits."""
        return theta

    @abstractmethod
    def support_logits(self, theta: Mapping[str, Tensor], support: Support, scale: Tensor | float) -> Tensor:
        """The logits that L_φ takes in the inner loop, (n, ways). Crops and unlabelled images take no part.

        A head with a fixed number of classes returns a column for each of them.
        """

    @abstractmethod
    def fit(self, theta: Mapping[str, Tensor], support: Support, scale: Tensor) -> FittedHead:
        """The head for the classes of ``support``, fitted to it."""

    @abstractmethod
    def loss_network(self, task: TaskLearnerConfig, generator: torch.Generator | None) -> LossNetwork:
        """The loss network L_φ for this head, randomly initialised from ``generator``."""
