"""Building ONNX graphs: the operators that stems, operations and heads write themselves with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

OPSET, IR_VERSION = 18, 9
Array = npt.NDArray[np.float32]
# ONNX's element type and the shape of a value; "n" is the number of images.
Value = tuple[int, tuple[str | int, ...]]


def array(tensor: Tensor) -> Array:
    """The values of a float32 tensor on any device."""
    values: Array = tensor.detach().cpu().numpy()
    return values


# Weights in 8 bits are whole multiples, up to this, of one number per output.
LEVELS = 127


def levels(weight: Array) -> tuple[npt.NDArray[np.int8], Array]:
    """A weight (out, ...) in 8 bits: whole numbers in -127..127, and the scale of each output, float (out,)."""
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)))
    scales = np.maximum(largest, np.finfo(np.float32).tiny) / np.float32(LEVELS)
    return np.rint(weight / _per_output(scales, weight)).astype(np.int8), scales


def rounded(weight: Tensor) -> Tensor:
    """The weight (out, ...) that a graph has which stores it in 8 bits (``OnnxWriter.in_8_bits``)."""
    values = array(weight)
    whole, scales = levels(values)
    return torch.from_numpy(whole.astype(np.float32) * _per_output(scales, values)).to(weight.device)


def _per_output(scales: Array, weight: Array) -> Array:
    return scales.reshape(-1, *(1,) * (weight.ndim - 1))


class OnnxWriter:
    """Collects the nodes and constants of a graph. As in ONNX, values are referred to by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Add an operator with one output and return the output's name."""
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: npt.NDArray[Any], dtype: type[np.generic] = np.float32) -> str:
        """Add an initializer and return its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype), name))
        return name

    def number(self, value: float) -> str:
        """Add a float32 constant with one element and return its name."""
        return self.constant(np.array([value]))

    def integers(self, *values: int) -> str:
        """Add an int64 constant, as operators expect axes and sizes, and return its name."""
        return self.constant(np.array(values), np.int64)

    def in_8_bits(self, weight: Array) -> str:
        """Add a weight (out, ...) that is stored in 8 bits, and return the name of the floats (see ``rounded``)."""
        whole, scales = levels(weight)
        return self.node("DequantizeLinear", [self.constant(whole, np.int8), self.constant(scales)], axis=0)

    def relu6(self, x: str) -> str:
        """Add min(max(x, 0), 6) and return its name."""
        return self.node("Clip", [x, self.constant(np.array(0.0)), self.constant(np.array(6.0))])

    def unit_length(self, x: str, shortest: float, output: str | None = None) -> str:
        """Add the rows of ``x`` (n, d) at length 1, or divided by ``shortest`` if they are shorter; the name."""
        length = self.node("ReduceL2", [x, self.integers(1)], keepdims=1)
        return self.node("Div", [x, self.node("Max", [length, self.number(shortest)])], output)

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
        """Add a convolution of ``x`` with "same" padding and return the result's name.

        ``weight``: (out, in / groups, kh, kw) with odd kh and kw. ``folded``: scale and shift, each (out,), of the
        normalisation that follows; they are folded into weight and bias. ``gain`` multiplies the result.
        ``input_range``: the value of ``x`` for which the network's input is 1; the weight is divided by it.
        """
        pad_y, pad_x = (dilation * (side // 2) for side in weight.shape[2:])
        if folded is None:
            inputs = [x, self.constant(weight * np.float32(gain) / np.float32(input_range))]
        else:
            scale, shift = folded
            combined = weight * (scale * np.float32(gain))[:, None, None, None]
            inputs = [x, self.constant(combined / np.float32(input_range)), self.constant(shift * np.float32(gain))]
        return self.node(
            "Conv",
            inputs,
            group=groups,
            kernel_shape=weight.shape[2:],  # ONNX takes it from the weight, but OpenCV refuses a file without it
            strides=stride,
            pads=[pad_y, pad_x, pad_y, pad_x],
            dilations=[dilation] * 2,
        )

    def scaled(self, x: str, scale: Array, shift: Array | None = None) -> str:
        """Add x * scale + shift, each (channels,), as a depthwise 1 x 1 convolution and return the result's name.

        ONNX Runtime keeps its blocked layout through a convolution and fuses the addition that follows; around products
        and sums with constants it would convert the layout twice.
        """
        inputs = [x, self.constant(scale[:, None, None, None])]
        if shift is not None:
            inputs.append(self.constant(shift))
        return self.node("Conv", inputs, group=len(scale), kernel_shape=[1, 1])

    def sum(self, terms: Sequence[str]) -> str:
        """Add the sum of ``terms`` (at least one) and return its name.

        It is a chain of binary additions, since ONNX Runtime fuses only those with the preceding convolution.
        """
        total, *more = terms
        for term in more:
            total = self.node("Add", [total, term])
        return total

    def model(
        self, name: str, inputs: Mapping[str, Value], outputs: Mapping[str, Value], metadata: Mapping[str, str]
    ) -> bytes:
        """The graph as an ONNX file."""
        taken, given = (
            [helper.make_tensor_value_info(value, *kind) for value, kind in values.items()]
            for values in (inputs, outputs)
        )
        body = helper.make_graph(self.nodes, name, taken, given, self.constants)
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        data: bytes = model.SerializeToString()
        return data


class OnnxState:
    """A node's state in a cell while the graph is written: its value, and its ReLU, which is written on first use."""

    def __init__(self, writer: OnnxWriter, value: str) -> None:
        self.value = value
        self._writer = writer
        self._active: str | None = None

    @property
    def active(self) -> str:
        """The name of its ReLU."""
        if self._active is None:
            self._active = self._writer.node("Relu", [self.value])
        return self._active
