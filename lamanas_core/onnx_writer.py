"""Writing ONNX nodes: what the parts of a network need to write themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from torch import Tensor

Array = npt.NDArray[np.float32]


def array(tensor: Tensor) -> Array:
    """The tensor's values as float32."""
    values: Array = tensor.detach().cpu().numpy()
    return values


class OnnxWriter:
    """Nodes and constants written so far. Names of values are strings, as ONNX has them."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """One operator of one output, whose name it returns."""
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: npt.NDArray[Any], dtype: type[np.generic] = np.float32) -> str:
        """An initializer; its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype), name))
        return name

    def number(self, value: float) -> str:
        """A constant of one element."""
        return self.constant(np.array([value]))

    def integers(self, *values: int) -> str:
        """A constant of int64, as axes and sizes are given."""
        return self.constant(np.array(values), np.int64)

    def convolution(
        self,
        x: str,
        weight: Array,
        folded: tuple[Array, Array] | None = None,
        *,
        stride: tuple[int, int] = (1, 1),
        gain: float = 1.0,
        groups: int = 1,
        dilation: int = 1,
        input_range: int = 1,
    ) -> str:
        """Convolution with padding that keeps the side. ``weight``: (out, in / groups, kh, kw), odd kernels.

        ``folded``: scale and shift, each (out,), of the normalisation behind it, which go into weights and bias.
        ``gain`` multiplies the result. ``input_range``: what a 1 of the network's input is in x, which weights are
        divided by.
        """
        tall, wide = (dilation * (side // 2) for side in weight.shape[2:])
        if folded is None:
            inputs = [x, self.constant(weight * np.float32(gain) / np.float32(input_range))]
        else:
            scale, shift = folded
            combined = weight * (scale * np.float32(gain))[:, None, None, None]
            inputs = [x, self.constant(combined / np.float32(input_range)), self.constant(shift * np.float32(gain))]
        pads, dilations = [tall, wide, tall, wide], [dilation] * 2
        return self.node("Conv", inputs, group=groups, strides=stride, pads=pads, dilations=dilations)

    def scaled(self, x: str, scale: Array, shift: Array | None = None) -> str:
        """x * scale + shift, each (channels,), as a convolution: ONNX Runtime keeps its blocked layout through that
        and adds what comes next in the same pass; for products and sums with constants it changes the layout and back.
        """
        inputs = [x, self.constant(scale[:, None, None, None])]
        if shift is not None:
            inputs.append(self.constant(shift))
        return self.node("Conv", inputs, group=len(scale), kernel_shape=[1, 1])

    def sum(self, terms: Sequence[str]) -> str:
        """By twos: only such a sum does ONNX Runtime fuse with the convolution before it."""
        total, *more = terms
        for term in more:
            total = self.node("Add", [total, term])
        return total


class OnnxState:
    """A cell's state while its graph is written: its value, and its ReLU, written once, when first asked for."""

    def __init__(self, writer: OnnxWriter, value: str) -> None:
        self.value = value
        self._writer = writer
        self._active: str | None = None

    @property
    def active(self) -> str:
        """Its ReLU."""
        if self._active is None:
            self._active = self._writer.node("Relu", [self.value])
        return self._active
