"""What a network is: a pure function of θ and α from images to features."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lamanas_core.config import NetworkConfig
from lamanas_core.genotype import Genotype
from lamanas_core.onnx_writer import OnnxWriter, Value
from lamanas_core.search.mixing import CellWeights, Mixing
from lamanas_core.search.normalisation import ALL_ROWS, Batch

# The moments of all normalisations in a forward pass; their structure is the network's own.
NetworkMoments = Any
Tensors = dict[str, Tensor]


class Network(ABC):
    """A network has no parameters of its own: θ and α are arguments of every call."""

    config: NetworkConfig
    # The tensors of θ that stay as they are in training, so that every adaptation starts from them.
    fixed: frozenset[str] = frozenset()

    @abstractmethod
    def inputs(self, images: Tensor) -> Tensor:
        """What the network takes, float32 (n, ...), for images, uint8 (n, c, size, size).

        It does not depend on θ and α, so that it can be computed once for many passes.
        """

    @abstractmethod
    def weights(self, alpha: Mapping[str, Tensor], mixing: Mixing) -> CellWeights:
        """The weights of all operations, as ``mixing`` derives them from α."""

    @abstractmethod
    def __call__(
        self,
        theta: Mapping[str, Tensor],
        weights: CellWeights,
        inputs: Tensor,
        moments: NetworkMoments = None,
        batch: Batch = ALL_ROWS,
    ) -> tuple[Tensor, NetworkMoments]:
        """``inputs`` of n images -> features, float32 (n, d), and the moments that normalised them.

        ``weights``: of the operations. ``moments``: the moments to normalise with; None: those of the images, as
        ``batch`` specifies.
        """

    @abstractmethod
    def initial_theta(self, generator: torch.Generator) -> dict[str, Tensor]:
        """θ before any training."""

    def first_rate(self, name: str) -> float:
        """The first step size of a tensor of θ, before its meta-training, relative to the config's ``theta_rate``."""
        return 1.0

    @abstractmethod
    def initial_alpha(self) -> dict[str, Tensor]:
        """α at 0, so that all operations have equal shares."""

    @abstractmethod
    def graph_inputs(self) -> dict[str, Value]:
        """The inputs of the graph that ``onnx`` writes, by name."""

    @abstractmethod
    def onnx(
        self, writer: OnnxWriter, theta: Mapping[str, Tensor], weights: CellWeights, moments: NetworkMoments
    ) -> str:
        """Write the network with fixed θ, pruned to what ``weights`` keeps; the name of the features (n, d)."""

    def stored(self, theta: Tensors) -> Tensors:
        """θ as the graph that ``onnx`` writes has it, if that stores some of it with fewer bits."""
        return theta

    @abstractmethod
    def kept_cost(self, weights: CellWeights) -> int:
        """The number of parameters in θ that are used if only the operations kept by ``weights`` are computed."""

    @abstractmethod
    def genotype(self, alpha: Mapping[str, Tensor], threshold: float | None = None) -> Genotype:
        """The discrete cells: the inputs and operations with a share (0..1) of at least ``threshold``; None: what is
        kept after an adaptation.
        """

    def pruned(self, alpha: Mapping[str, Tensor], threshold: float | None = None) -> CellWeights:
        """The weights at the final temperature, of what ``threshold`` keeps, as in ``genotype``."""
        kept = self.config.prune_threshold if threshold is None else threshold
        return self.weights(alpha, Mixing(self.config.temperature, kept))
