"""The candidate operations on a map of a backbone. Each is added to the map, and starts as nothing.

An operation maps float (n, C, h, w) to (n, C, h, w), and is 0 for all maps before any training, so that the adaptation
starts from what the backbone has learned. To add one, implement ``TapOperation`` and register it in ``TAP_OPERATIONS``.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamanas_core.onnx_writer import OnnxWriter, array


class TapOperation(nn.Module, ABC):
    """An operation on a map with ``channels`` channels; its parameters belong to θ."""

    @abstractmethod
    def __init__(self, channels: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> (n, C, h, w)."""

    @abstractmethod
    def onnx(self, writer: OnnxWriter, x: str, gain: float) -> str:
        """Write ``forward`` times ``gain``; the name of the result."""


class ChannelScale(TapOperation):
    """x s, with one number per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None]

    def onnx(self, writer: OnnxWriter, x: str, gain: float) -> str:
        return writer.scaled(x, array(self.weight * gain))


class PointwiseMap(TapOperation):
    """1 x 1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.zeros(channels, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight)

    def onnx(self, writer: OnnxWriter, x: str, gain: float) -> str:
        """The weight is stored in 8 bits: it is most of what an adaptation leaves behind."""
        weight = writer.in_8_bits(array(self.weight))
        convolved = writer.node("Conv", [x, weight], kernel_shape=[1, 1])
        return writer.node("Mul", [convolved, writer.number(gain)])


class DepthwiseMap(TapOperation):
    """3 x 3 depthwise convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.zeros(channels, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, None, 1, 1, 1, len(self.weight))

    def onnx(self, writer: OnnxWriter, x: str, gain: float) -> str:
        return writer.convolution(x, array(self.weight), gain=gain, groups=len(self.weight))


# By their names in configurations and genotypes. None: no operation; α can choose that a map stays as it is.
TAP_OPERATIONS: dict[str, type[TapOperation] | None] = {
    "none": None,
    "scale": ChannelScale,
    "conv_1x1": PointwiseMap,
    "depthwise_3x3": DepthwiseMap,
}
