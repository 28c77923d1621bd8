"""The candidate operations of an edge. Each maps (n, C, h, w) to (n, C, h / stride, w / stride).

A new one is a class here, or in a file of its own, and a line in ``OPERATIONS``.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamanas_core.onnx_writer import OnnxState, OnnxWriter, array
from lamanas_core.search.normalisation import Batch, Normalisation, PartMoments


class CellState:
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
    """One way from a state to a node. Made by ``make(channels, stride)``; its parameters belong to θ."""

    # Whether dropped paths may leave it out in training.
    may_be_dropped: ClassVar[bool] = True

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    @classmethod
    def make(cls, channels: int, stride: int) -> "Operation":
        """The operation on ``channels`` channels with this stride (1 or 2)."""
        return cls(channels, stride)

    @abstractmethod
    def forward(
        self, state: CellState, weight: Tensor, moments: PartMoments | None, batch: Batch
    ) -> tuple[Tensor, PartMoments]:
        """The operation on ``state`` times its ``weight`` (a scalar) in the mix, and the moments of its normalisations,
        which are ``moments`` or, where that is None, come of ``batch``."""

    @abstractmethod
    def onnx(self, writer: OnnxWriter, state: OnnxState, moments: PartMoments, gain: float) -> str:
        """Write ``forward`` under fixed ``moments``; the name of its result."""

    def cost(self) -> int:
        """How many numbers of θ it needs."""
        return sum(parameter.numel() for parameter in self.parameters())


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

    kernel: ClassVar[int] = 3

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, stride)
        self.conv = (
            PointwiseConvolution(channels, channels, stride)
            if self.kernel == 1
            else nn.Conv2d(channels, channels, self.kernel, stride, self.kernel // 2, bias=False)
        )
        self.norm = Normalisation(channels)

    def forward(
        self, state: CellState, weight: Tensor, moments: PartMoments | None, batch: Batch
    ) -> tuple[Tensor, PartMoments]:
        y, own = self.norm(self.conv(state.active), _only(moments), batch, weight)
        return y, (own,)

    def onnx(self, writer: OnnxWriter, state: OnnxState, moments: PartMoments, gain: float) -> str:
        folded = self.norm.folded(moments[0])
        strides = (self.stride, self.stride)
        return writer.convolution(state.active, array(self.conv.weight), folded, stride=strides, gain=gain)


class FactorisedConvolution(Operation):
    """ReLU, convolution 1 x 5, convolution 5 x 1, normalisation."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, stride)
        self.wide = nn.Conv2d(channels, channels, (1, 5), (1, stride), (0, 2), bias=False)
        self.tall = nn.Conv2d(channels, channels, (5, 1), (stride, 1), (2, 0), bias=False)
        self.norm = Normalisation(channels)

    def forward(
        self, state: CellState, weight: Tensor, moments: PartMoments | None, batch: Batch
    ) -> tuple[Tensor, PartMoments]:
        y, own = self.norm(self.tall(self.wide(state.active)), _only(moments), batch, weight)
        return y, (own,)

    def onnx(self, writer: OnnxWriter, state: OnnxState, moments: PartMoments, gain: float) -> str:
        wide = writer.convolution(state.active, array(self.wide.weight), stride=(1, self.stride))
        folded = self.norm.folded(moments[0])
        return writer.convolution(wide, array(self.tall.weight), folded, stride=(self.stride, 1), gain=gain)


class SeparableConvolution(Operation):
    """ReLU, depthwise convolution 3 x 3, pointwise convolution, normalisation."""

    dilation: ClassVar[int] = 1

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, stride)
        self.depthwise = (
            nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
            if self.dilation == 1
            else DilatedDepthwiseConvolution(channels, stride)
        )
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = Normalisation(channels)

    def forward(
        self, state: CellState, weight: Tensor, moments: PartMoments | None, batch: Batch
    ) -> tuple[Tensor, PartMoments]:
        y, own = self.norm(self.pointwise(self.depthwise(state.active)), _only(moments), batch, weight)
        return y, (own,)

    def onnx(self, writer: OnnxWriter, state: OnnxState, moments: PartMoments, gain: float) -> str:
        depthwise = array(self.depthwise.weight)
        strides = (self.stride, self.stride)
        x = writer.convolution(state.active, depthwise, stride=strides, groups=len(depthwise), dilation=self.dilation)
        return writer.convolution(x, array(self.pointwise.weight), self.norm.folded(moments[0]), gain=gain)


class DilatedSeparableConvolution(SeparableConvolution):
    """A separable convolution whose depthwise part sees 5 x 5, every second position."""

    dilation = 2


class DoubleSeparableConvolution(Operation):
    """Two separable convolutions, one behind the other; the first has the stride (DARTS's ``sep_conv``)."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, stride)
        self.first = SeparableConvolution(channels, stride)
        self.second = SeparableConvolution(channels, 1)

    def forward(
        self, state: CellState, weight: Tensor, moments: PartMoments | None, batch: Batch
    ) -> tuple[Tensor, PartMoments]:
        first, second = (None, None) if moments is None else (moments[:1], moments[1:])
        between, of_first = self.first(state, torch.ones_like(weight), first, batch)
        y, of_second = self.second(CellState(between), weight, second, batch)
        return y, (*of_first, *of_second)

    def onnx(self, writer: OnnxWriter, state: OnnxState, moments: PartMoments, gain: float) -> str:
        between = OnnxState(writer, self.first.onnx(writer, state, moments[:1], 1.0))
        return self.second.onnx(writer, between, moments[1:], gain)


class Pooling(Operation):
    """Maximum or average of 3 x 3, then normalisation."""

    kind: ClassVar[str]
    onnx_operator: ClassVar[str]

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, stride)
        self.norm = Normalisation(channels)

    def forward(
        self, state: CellState, weight: Tensor, moments: PartMoments | None, batch: Batch
    ) -> tuple[Tensor, PartMoments]:
        y, own = self.norm(state.pooled(self.kind, self.stride), _only(moments), batch, weight)
        return y, (own,)

    def onnx(self, writer: OnnxWriter, state: OnnxState, moments: PartMoments, gain: float) -> str:
        strides = [self.stride, self.stride]
        pooled = writer.node(self.onnx_operator, [state.value], kernel_shape=[3, 3], strides=strides, pads=[1] * 4)
        # Not folded forward: behind it there is padding and ReLU.
        scale, shift = self.norm.folded(moments[0])
        return writer.scaled(pooled, scale * np.float32(gain), shift * np.float32(gain))


class MaxPooling(Pooling):
    """Maximum of 3 x 3, then normalisation."""

    kind, onnx_operator = "max", "MaxPool"


class AveragePooling(Pooling):
    """Average of 3 x 3, then normalisation."""

    kind, onnx_operator = "avg", "AveragePool"


class Skip(Operation):
    """The input itself; with stride 2 ``make`` gives a strided convolution in its place."""

    may_be_dropped = False

    @classmethod
    def make(cls, channels: int, stride: int) -> Operation:
        return cls(channels, stride) if stride == 1 else StridedSkip(channels, stride)

    def forward(
        self, state: CellState, weight: Tensor, moments: PartMoments | None, batch: Batch
    ) -> tuple[Tensor, PartMoments]:
        return state.value * weight, ()

    def onnx(self, writer: OnnxWriter, state: OnnxState, moments: PartMoments, gain: float) -> str:
        return writer.scaled(state.value, np.full(self.channels, gain, np.float32))


class StridedSkip(Convolution):
    """ReLU, convolution 1 x 1 on every second position, normalisation."""

    may_be_dropped = False
    kernel = 1


class Nothing(Operation):
    """Zero: α's way of choosing no operation at all."""

    def forward(
        self, state: CellState, weight: Tensor, moments: PartMoments | None, batch: Batch
    ) -> tuple[Tensor, PartMoments]:
        return state.value[:, :, :: self.stride, :: self.stride] * 0 * weight, ()

    def onnx(self, writer: OnnxWriter, state: OnnxState, moments: PartMoments, gain: float) -> str:
        nothing = writer.node("Mul", [state.value, writer.number(0.0)])
        return writer.node("MaxPool", [nothing], kernel_shape=[1, 1], strides=[self.stride, self.stride])


def _only(moments: PartMoments | None) -> tuple[Tensor, Tensor] | None:
    """Those of the one normalisation that an operation has."""
    return None if moments is None else moments[0]


# By the names that configurations and genotypes use.
OPERATIONS: dict[str, type[Operation]] = {
    "none": Nothing,
    "max_pool_3x3": MaxPooling,
    "avg_pool_3x3": AveragePooling,
    "skip": Skip,
    "conv_1x5_5x1": FactorisedConvolution,
    "conv_3x3": Convolution,
    "sep_conv_3x3": SeparableConvolution,
    "double_sep_conv_3x3": DoubleSeparableConvolution,
    "dil_conv_3x3": DilatedSeparableConvolution,
}


def operation_type(name: str) -> type[Operation]:
    """The class of the operation ``name``. Raises ValueError if the name is unknown."""
    if name not in OPERATIONS:
        raise ValueError(f"unknown operation {name!r}; available: {', '.join(sorted(OPERATIONS))}")
    return OPERATIONS[name]
