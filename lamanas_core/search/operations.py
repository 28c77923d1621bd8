"""The candidate operations of an edge. Each maps float (n, C, h, w) to (n, C, ceil(h / stride), ceil(w / stride)).

To add an operation, implement ``Operation`` here or in a new file and register it in ``OPERATIONS``.
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
    """A state in a cell (an input or a node), ``value`` (n, C, h, w), with results that its edges share.

    They are computed on first use. All edges from a state pool the same tensor and differ only in their normalisation.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self._pooled: dict[tuple[str, int], Tensor] = {}

    @cached_property
    def active(self) -> Tensor:
        """Its ReLU."""
        return F.relu(self.value)

    def pooled(self, kind: str, stride: int) -> Tensor:
        """Its 3 x 3 pooling with padding 1; ``kind``: "max" or "avg", which does not count the padding."""
        pooled = self._pooled.get((kind, stride))
        if pooled is None:
            if kind == "max":
                pooled = F.max_pool2d(self.value, 3, stride, 1)
            else:
                pooled = F.avg_pool2d(self.value, 3, stride, 1, count_include_pad=False)
            self._pooled[kind, stride] = pooled
        return pooled


class Operation(nn.Module, ABC):
    """An operation from a state to a node. Create it with ``make(channels, stride)``; its parameters belong to θ."""

    # Whether drop-path may drop it in training.
    may_be_dropped: ClassVar[bool] = True

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    @classmethod
    def make(cls, channels: int, stride: int) -> "Operation":
        """The operation on ``channels`` channels with ``stride`` 1 or 2."""
        return cls(channels, stride)

    @abstractmethod
    def forward(
        self, state: CellState, weight: Tensor, moments: PartMoments | None, batch: Batch
    ) -> tuple[Tensor, PartMoments]:
        """The operation's result for ``state`` times ``weight``, a scalar, and the moments of its normalisations.

        ``moments``: the moments to normalise with; None: those of the state, as ``batch`` specifies.
        """

    @abstractmethod
    def onnx(self, writer: OnnxWriter, state: OnnxState, moments: PartMoments, gain: float) -> str:
        """Write ``forward`` with fixed ``moments`` and the weight ``gain``; the name of the result."""

    def cost(self) -> int:
        """The number of its parameters in θ."""
        return sum(parameter.numel() for parameter in self.parameters())


class PointwiseConvolution(nn.Conv2d):
    """1 x 1 convolution, with a stride as subsampling followed by a convolution.

    It is not a strided convolution because oneDNN's gradient for the weight of one writes beyond its workspace if the
    images are channels-last and have fewer channels than a vector register has elements (uxlfoundation/oneDNN issue
    6035).
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__(channels_in, channels, 1, bias=False)
        self.every = stride

    def forward(self, x: Tensor) -> Tensor:
        # Subsampling by 1 x 1 pooling: the gradient of slicing would not be channels-last.
        return super().forward(x if self.every == 1 else F.avg_pool2d(x, 1, self.every))


class DilatedDepthwiseConvolution(nn.Conv2d):
    """Depthwise 3 x 3 convolution with dilation 2, whose receptive field is 5 x 5.

    It is computed by convolutions without dilation, for whose gradients oneDNN has fast kernels. With stride 2 it uses
    only every second position; with stride 1, even and odd rows and columns are independent of each other.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 3, 1, 1, groups=channels, bias=False)
        self.every = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.every == 2:
            return super().forward(F.avg_pool2d(x, 1, 2))
        n, c, h, w = x.shape
        if h % 2 or w % 2:  # the parts would have different sizes; such maps are small
            return F.conv2d(x, self.weight, None, 1, 2, 2, c)
        # As (n, h, w, c), the order of channels-last memory.
        parts = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(2, 4, 0, 1, 3, 5)
        convolved = super().forward(parts.reshape(4 * n, h // 2, w // 2, c).permute(0, 3, 1, 2))
        merged = convolved.permute(0, 2, 3, 1).reshape(2, 2, n, h // 2, w // 2, c).permute(2, 3, 0, 4, 1, 5)
        return merged.reshape(n, h, w, c).permute(0, 3, 1, 2)


class Convolution(Operation):
    """ReLU, k x k convolution (k = ``kernel``), normalisation."""

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
    """ReLU, 1 x 5 convolution, 5 x 1 convolution, normalisation."""

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
    """ReLU, depthwise 3 x 3 convolution, pointwise convolution, normalisation."""

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
    """A separable convolution whose depthwise convolution has dilation 2."""

    dilation = 2


class DoubleSeparableConvolution(Operation):
    """Two separable convolutions in sequence; the stride is that of the first (``sep_conv`` in DARTS)."""

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
    """3 x 3 maximum or average pooling, then normalisation."""

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
        # Not folded into the next layer: padding or a ReLU comes between.
        scale, shift = self.norm.folded(moments[0])
        return writer.scaled(pooled, scale * np.float32(gain), shift * np.float32(gain))


class MaxPooling(Pooling):
    """3 x 3 maximum pooling, then normalisation."""

    kind, onnx_operator = "max", "MaxPool"


class AveragePooling(Pooling):
    """3 x 3 average pooling, then normalisation."""

    kind, onnx_operator = "avg", "AveragePool"


class Skip(Operation):
    """The identity; for stride 2, ``make`` returns a ``StridedSkip`` instead."""

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
    """ReLU, 1 x 1 convolution on every second position, normalisation."""

    may_be_dropped = False
    kernel = 1


class Nothing(Operation):
    """The zero operation of DARTS: with it α can choose to have no operation on an edge."""

    def forward(
        self, state: CellState, weight: Tensor, moments: PartMoments | None, batch: Batch
    ) -> tuple[Tensor, PartMoments]:
        return state.value[:, :, :: self.stride, :: self.stride] * 0 * weight, ()

    def onnx(self, writer: OnnxWriter, state: OnnxState, moments: PartMoments, gain: float) -> str:
        zeros = writer.node("Mul", [state.value, writer.number(0.0)])
        return writer.node("MaxPool", [zeros], kernel_shape=[1, 1], strides=[self.stride, self.stride])


def _only(moments: PartMoments | None) -> tuple[Tensor, Tensor] | None:
    """The moments of an operation with a single normalisation."""
    return None if moments is None else moments[0]


# By their names in configurations and genotypes.
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
