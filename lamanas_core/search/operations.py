"""The candidate operations of an edge. Each maps (n, C, h, w) to (n, C, h / stride, w / stride)."""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamanas_core.search.normalisation import Normalisation, Statistics


class State:
    """A cell's state, ``value`` (n, C, h, w), and what several edges need of it: each computed once, when first asked.

    Every edge out of a state pools the same tensor; only what the edge's normalisation makes of it differs.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self._pooled: dict[tuple[str, int], Tensor] = {}

    @cached_property
    def active(self) -> Tensor:
        """Its ReLU."""
        return F.relu(self.value)

    def pooled(self, kind: str, stride: int) -> Tensor:
        """Its ``kind`` ("max" or "avg") of 3 x 3; the average leaves padding out of the count."""
        known = self._pooled.get((kind, stride))
        if known is None:
            if kind == "max":
                known = F.max_pool2d(self.value, 3, stride, 1)
            else:
                known = F.avg_pool2d(self.value, 3, stride, 1, count_include_pad=False)
            self._pooled[kind, stride] = known
        return known


class Operation(nn.Module, ABC):
    """One way from a state to a node."""

    @abstractmethod
    def forward(self, state: State, statistics: Statistics, weight: Tensor) -> Tensor:
        """The operation on ``state`` times its ``weight`` in the mix."""


class PointwiseConvolution(nn.Conv2d):
    """Convolution 1 x 1; with a stride, on the positions that are left.

    Not by a strided convolution: oneDNN's gradient of its weights writes past its workspace where the images lie
    channels-last and have fewer channels than a vector register (uxlfoundation/oneDNN issue 6035).
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__(channels_in, channels, 1, bias=False)
        self.every = stride

    def forward(self, x: Tensor) -> Tensor:
        # Pooling of single positions: slicing would give a gradient that does not lie channels-last.
        return super().forward(x if self.every == 1 else F.avg_pool2d(x, 1, self.every))


class DilatedDepthwiseConvolution(nn.Conv2d):
    """Depthwise convolution 3 x 3 with holes of one position: it sees 5 x 5.

    Taken apart into convolutions without holes, for whose gradients oneDNN has fast code: with a stride of 2 only every
    second position is ever seen; without one the even and odd rows and columns never meet.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 3, 1, 1, groups=channels, bias=False)
        self.every = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.every == 2:
            return super().forward(F.avg_pool2d(x, 1, 2))
        n, c, h, w = x.shape
        if h % 2 or w % 2:  # small, and the parts of unlike sizes
            return F.conv2d(x, self.weight, None, 1, 2, 2, c)
        # Seen as (n, h, w, c), which is how it lies in memory where it is channels-last.
        parts = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(2, 4, 0, 1, 3, 5)
        together = super().forward(parts.reshape(4 * n, h // 2, w // 2, c).permute(0, 3, 1, 2))
        apart = together.permute(0, 2, 3, 1).reshape(2, 2, n, h // 2, w // 2, c).permute(2, 3, 0, 4, 1, 5)
        return apart.reshape(n, h, w, c).permute(0, 3, 1, 2)


class Convolution(Operation):
    """ReLU, convolution k x k, normalisation."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = (
            PointwiseConvolution(channels, channels, stride)
            if kernel == 1
            else nn.Conv2d(channels, channels, kernel, stride, kernel // 2, bias=False)
        )
        self.norm = Normalisation(channels)

    def forward(self, state: State, statistics: Statistics, weight: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.conv(state.active), statistics, weight)
        return normalised


class FactorisedConvolution(Operation):
    """ReLU, convolution 1 x 5, convolution 5 x 1, normalisation."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, (1, 5), (1, stride), (0, 2), bias=False)
        self.tall = nn.Conv2d(channels, channels, (5, 1), (stride, 1), (2, 0), bias=False)
        self.norm = Normalisation(channels)

    def forward(self, state: State, statistics: Statistics, weight: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.tall(self.wide(state.active)), statistics, weight)
        return normalised


class SeparableConvolution(Operation):
    """ReLU, depthwise convolution 3 x 3 (``dilated``: seeing 5 x 5), pointwise convolution, normalisation."""

    def __init__(self, channels: int, stride: int, *, dilated: bool = False) -> None:
        super().__init__()
        self.depthwise = (
            nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
            if not dilated
            else DilatedDepthwiseConvolution(channels, stride)
        )
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = Normalisation(channels)

    def forward(self, state: State, statistics: Statistics, weight: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.pointwise(self.depthwise(state.active)), statistics, weight)
        return normalised


class DoubleSeparableConvolution(Operation):
    """Two separable convolutions, one behind the other; the first has the stride (DARTS's ``sep_conv``)."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.first = SeparableConvolution(channels, stride)
        self.second = SeparableConvolution(channels, 1)

    def forward(self, state: State, statistics: Statistics, weight: Tensor) -> Tensor:
        between: Tensor = self.first(state, statistics, torch.ones_like(weight))
        result: Tensor = self.second(State(between), statistics, weight)
        return result


class Pooling(Operation):
    """Maximum or average of 3 x 3, then normalisation."""

    def __init__(self, channels: int, kind: str, stride: int) -> None:
        super().__init__()
        self.kind, self.stride = kind, stride
        self.norm = Normalisation(channels)

    def forward(self, state: State, statistics: Statistics, weight: Tensor) -> Tensor:
        normalised: Tensor = self.norm(state.pooled(self.kind, self.stride), statistics, weight)
        return normalised


class Identity(Operation):
    """The input itself."""

    def forward(self, state: State, statistics: Statistics, weight: Tensor) -> Tensor:
        return state.value * weight


class Nothing(Operation):
    """Zero: α's way of choosing no operation at all."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, state: State, statistics: Statistics, weight: Tensor) -> Tensor:
        return state.value[:, :, :: self.stride, :: self.stride] * 0 * weight


def make_operation(name: str, channels: int, stride: int) -> Operation:
    """The operation called ``name``; a skip with stride 2 is a strided 1 x 1 convolution. Raises ValueError."""
    match name:
        case "max_pool_3x3":
            return Pooling(channels, "max", stride)
        case "avg_pool_3x3":
            return Pooling(channels, "avg", stride)
        case "skip":
            return Identity() if stride == 1 else Convolution(channels, 1, stride)
        case "conv_3x3":
            return Convolution(channels, 3, stride)
        case "conv_1x5_5x1":
            return FactorisedConvolution(channels, stride)
        case "sep_conv_3x3":
            return SeparableConvolution(channels, stride)
        case "double_sep_conv_3x3":
            return DoubleSeparableConvolution(channels, stride)
        case "dil_conv_3x3":
            return SeparableConvolution(channels, stride, dilated=True)
        case "none":
            return Nothing(stride)
    raise ValueError(f"no operation is called {name!r}")
