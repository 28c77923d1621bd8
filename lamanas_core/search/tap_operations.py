"""The candidate operations on a map of a backbone. Each is added to the map, and starts as nothing.

An operation maps float (n, C, h, w) to (n, C, h, w) with one weight, which is 0 before any training, so that the
adaptation starts from what the backbone has learned. To add one, implement ``TapOperation`` and register it in
``TAP_OPERATIONS``.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from lamanas_core.onnx_writer import OnnxWriter, array


class TapOperation(ABC):
    """An operation on a map. Its weight, which belongs to θ, is an argument of every call."""

    # Whether graphs store its weight in 8 bits (see ``onnx_writer.rounded``).
    in_8_bits: ClassVar[bool] = False

    @abstractmethod
    def shape(self, channels: int) -> tuple[int, ...]:
        """The shape of its weight on a map with ``channels`` channels."""

    @abstractmethod
    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """(n, C, h, w) -> (n, C, h, w)."""

    @abstractmethod
    def onnx(self, writer: OnnxWriter, x: str, weight: Tensor) -> str:
        """Write the operation with a fixed weight; the name of the result."""


class ChannelScale(TapOperation):
    """x s, with one number per channel."""

    def shape(self, channels: int) -> tuple[int, ...]:
        return (channels,)

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * weight[:, None, None]

    def onnx(self, writer: OnnxWriter, x: str, weight: Tensor) -> str:
        return writer.scaled(x, array(weight))


class PointwiseMap(TapOperation):
    """1 x 1 convolution. Its weight is most of what an adaptation leaves behind."""

    in_8_bits = True

    def shape(self, channels: int) -> tuple[int, ...]:
        return (channels, channels, 1, 1)

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight)

    def onnx(self, writer: OnnxWriter, x: str, weight: Tensor) -> str:
        return writer.node("Conv", [x, writer.in_8_bits(array(weight))], kernel_shape=[1, 1])


class DepthwiseMap(TapOperation):
    """3 x 3 depthwise convolution."""

    def shape(self, channels: int) -> tuple[int, ...]:
        return (channels, 1, 3, 3)

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, None, 1, 1, 1, len(weight))

    def onnx(self, writer: OnnxWriter, x: str, weight: Tensor) -> str:
        return writer.convolution(x, array(weight), groups=len(weight))


# By their names in configurations and genotypes. None: no operation; α can choose that a map stays as it is.
TAP_OPERATIONS: dict[str, TapOperation | None] = {
    "none": None,
    "scale": ChannelScale(),
    "conv_1x1": PointwiseMap(),
    "depthwise_3x3": DepthwiseMap(),
}


def tap_operation(name: str) -> TapOperation | None:
    """The operation ``name``. Raises ValueError if the name is unknown."""
    if name not in TAP_OPERATIONS:
        raise ValueError(f"unknown operation {name!r}; available: {', '.join(sorted(TAP_OPERATIONS))}")
    return TAP_OPERATIONS[name]
