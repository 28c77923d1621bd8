"""The adapted network written as an ONNX graph, straight from what α keeps, normalisation folded in.

A normalisation behind a convolution goes into its weights and bias, together with the edge's weight; behind a pooling
it stays a scale and a shift. Nothing is folded forward across padding or ReLU.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lamanas_core.adapt.parameters import Parameters
from lamanas_core.artifact import FORMAT
from lamanas_core.backbones import RESNET_SIDE
from lamanas_core.config import Calibration, Config, NetworkConfig
from lamanas_core.heads import NEAREST, Head
from lamanas_core.search.alpha import EdgeWeights, cell_weights, edges
from lamanas_core.search.batch_norm import EPSILON
from lamanas_core.search.normalisation import Statistics

Array = npt.NDArray[np.float32]
OPSET, IR_VERSION = 18, 9


@dataclass
class _Graph:
    """The nodes and constants written so far."""

    config: NetworkConfig
    theta: dict[str, Array]
    statistics: Statistics
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
        return name

    def moments(self, norm: str) -> tuple[Array, Array]:
        """Scale and shift that the normalisation called ``norm`` comes down to, each (channels,)."""
        mean, var = (moment.cpu().double().numpy() for moment in self.statistics.moments[norm])
        scale = self.theta[f"{norm}.weight"].astype(np.float64) / np.sqrt(var + EPSILON)
        shift = self.theta[f"{norm}.bias"].astype(np.float64) - mean * scale
        return scale.astype(np.float32), shift.astype(np.float32)

    def convolution(
        self,
        x: str,
        conv: str,
        norm: str | None,
        stride: tuple[int, int] = (1, 1),
        gain: float = 1.0,
        groups: int = 1,
        dilation: int = 1,
    ) -> str:
        weight = self.theta[f"{conv}.weight"]
        inputs = [x]
        tall, wide = (dilation * (side // 2) for side in weight.shape[2:])
        if norm is None:
            inputs.append(self.constant(weight * np.float32(gain)))
        else:
            scale, shift = self.moments(norm)
            inputs.append(self.constant(weight * (scale * np.float32(gain))[:, None, None, None]))
            inputs.append(self.constant(shift * np.float32(gain)))
        pads, dilations = [tall, wide, tall, wide], [dilation] * 2
        return self.node("Conv", inputs, group=groups, strides=stride, pads=pads, dilations=dilations)

    def scaled(self, x: str, scale: Array, shift: Array | None = None) -> str:
        """x * scale + shift, each (channels,), as a convolution: ONNX Runtime keeps its blocked layout through that
        and adds what comes next in the same pass; for products and sums with constants it turns the layout and back."""
        inputs = [x, self.constant(scale[:, None, None, None])]
        if shift is not None:
            inputs.append(self.constant(shift))
        return self.node("Conv", inputs, group=len(scale), kernel_shape=[1, 1])

    def sum(self, terms: Sequence[str]) -> str:
        """By twos: only such a sum does ONNX Runtime add in the convolution before it."""
        total, *more = terms
        for term in more:
            total = self.node("Add", [total, term])
        return total

    def separable(self, x: str, path: str, stride: tuple[int, int], gain: float = 1.0, dilation: int = 1) -> str:
        groups = self.config.channels
        x = self.convolution(x, f"{path}.depthwise", None, stride, groups=groups, dilation=dilation)
        return self.convolution(x, f"{path}.pointwise", f"{path}.norm", gain=gain)


def build(
    whole: Config,
    parameters: Parameters,
    statistics: Statistics,
    head: Head,
    classes: Sequence[str],
    model_version: str,
) -> bytes:
    """The ONNX file: input ``images`` uint8 (n, c, h, w); outputs ``logits``, ``probabilities`` float32 (n, ways), and
    with prototypes ``novelty`` float32 (n,).
    """
    config = whole.network
    weights = cell_weights(parameters.alpha, config, temperature=config.temperature, threshold=config.prune_threshold)
    theta = {name: value.detach().cpu().numpy() for name, value in parameters.theta.items()}
    graph = _Graph(config, theta, statistics)
    x, side = _stem(graph, graph.node("Cast", ["images"], to=TensorProto.FLOAT))
    before, first_is_larger = (x, x), False
    for index, kind in enumerate(config.cells):
        out = _cell(graph, f"cells.{index}", kind, before, first_is_larger, weights.kinds[kind])
        before, first_is_larger = (before[1], out), kind == "reduction"
        side = _halved(side, 2) if kind == "reduction" else side
    stride, kernel = side // config.pool_to, side - (side // config.pool_to) * (config.pool_to - 1)
    pooled = graph.node(
        "AveragePool", [graph.node("Relu", [before[1]])], kernel_shape=[kernel] * 2, strides=[stride] * 2
    )
    flat = graph.node("Flatten", [pooled])
    head_inputs = [flat, *(graph.constant(part.cpu().numpy()) for part in (head.weight, head.bias))]
    graph.node("Gemm", head_inputs, output="logits", transB=1)
    graph.node("Softmax", ["logits"], output="probabilities", axis=1)
    if head.scale is not None:
        _novelty(graph, flat, float(head.scale), float(head.spread()), whole.calibration)
    return _model(graph, len(classes), {"classes": json.dumps(list(classes)), "model_version": model_version})


def _halved(side: int, stride: int) -> int:
    return (side + stride - 1) // stride


def _novelty(graph: _Graph, features: str, scale: float, spread: float, calibration: Calibration) -> None:
    """``Head.log_distance_ratio`` on the logistic curve of the calibration."""

    def number(value: float) -> str:
        return graph.constant(np.array([value], np.float32))

    squares = graph.node("ReduceMean", [graph.node("Mul", [features, features]), _axis_1(graph)], keepdims=0)
    best = graph.node("ReduceMax", ["logits", _axis_1(graph)], keepdims=0)
    nearest = graph.node("Sub", [squares, graph.node("Mul", [best, number(1 / scale)])])
    ratio = graph.node("Mul", [graph.node("Max", [nearest, number(NEAREST)]), number(1 / spread)])
    above = graph.node("Sub", [graph.node("Log", [ratio]), number(calibration.novelty_centre)])
    graph.node("Sigmoid", [graph.node("Mul", [above, number(calibration.novelty_slope)])], output="novelty")


def _axis_1(graph: _Graph) -> str:
    name = f"axis{len(graph.constants)}"
    graph.constants.append(numpy_helper.from_array(np.array([1], np.int64), name))
    return name


def _stem(graph: _Graph, x: str) -> tuple[str, int]:
    """The stem's output and its side. 1 / 255 goes into its first convolution: its padding is 0 either way."""
    config = graph.config
    first = len(graph.constants)
    if config.stem == "resnet18":
        x = graph.convolution(x, "stem.to_colour", None)
        sizes = numpy_helper.from_array(np.array([RESNET_SIDE] * 2, np.int64), "resnet_side")
        graph.constants.append(sizes)
        x = graph.node("Resize", [x, "", "", sizes.name], mode="linear", axes=[2, 3])
        x = graph.node("Relu", [graph.convolution(x, "stem.first", "stem.norm", (2, 2))])
        x = graph.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        x, side = graph.convolution(x, "stem.behind", "stem.behind_norm"), RESNET_SIDE // 4
    else:
        x = graph.convolution(x, "stem", "stem_norm", (config.stem_stride,) * 2)
        side = _halved(config.image.size, config.stem_stride)
    weight = numpy_helper.to_array(graph.constants[first]) / np.float32(255)
    graph.constants[first].CopyFrom(numpy_helper.from_array(weight, graph.constants[first].name))
    return x, side


def _cell(graph: _Graph, name: str, kind: str, before: tuple[str, str], first_is_larger: bool, mix: EdgeWeights) -> str:
    states = []
    for i, (entry, stride) in enumerate(zip(before, (2 if first_is_larger else 1, 1), strict=True)):
        prepared = f"{name}.prepare{i}"
        states.append(
            graph.convolution(graph.node("Relu", [entry]), f"{prepared}.conv", f"{prepared}.norm", (stride,) * 2)
        )
    active: dict[int, str] = {}
    terms: list[list[str]] = [[] for _ in range(graph.config.nodes)]
    for row, (node, source) in enumerate(edges(graph.config.nodes)):
        if source == node + 1 and source >= 2:
            states.append(graph.sum(terms[node - 1]))
        stride = 2 if kind == "reduction" and source < 2 else 1
        for o in mix.kept[row]:
            operation = graph.config.operations[o]
            if source not in active and operation not in ("max_pool_3x3", "avg_pool_3x3", "none"):
                active[source] = graph.node("Relu", [states[source]])
            gain = float(mix.weights[row, o].detach())
            path = f"{name}.edges.{row}.{o}"
            terms[node].append(_operation(graph, operation, path, states[source], active.get(source, ""), stride, gain))
    states.append(graph.sum(terms[-1]))
    return graph.node("Concat", states[2:], axis=1)


def _operation(graph: _Graph, operation: str, path: str, x: str, active: str, stride: int, gain: float) -> str:
    strides = (stride, stride)
    match operation:
        case "skip" if stride == 1:
            return graph.scaled(x, np.full(graph.config.channels, gain, np.float32))
        case "conv_3x3" | "skip":
            return graph.convolution(active, f"{path}.conv", f"{path}.norm", strides, gain)
        case "conv_1x5_5x1":
            wide = graph.convolution(active, f"{path}.wide", None, (1, stride))
            return graph.convolution(wide, f"{path}.tall", f"{path}.norm", (stride, 1), gain)
        case "sep_conv_3x3":
            return graph.separable(active, path, strides, gain)
        case "dil_conv_3x3":
            return graph.separable(active, path, strides, gain, dilation=2)
        case "double_sep_conv_3x3":
            between = graph.node("Relu", [graph.separable(active, f"{path}.first", strides)])
            return graph.separable(between, f"{path}.second", (1, 1), gain)
        case "max_pool_3x3" | "avg_pool_3x3":
            pooling = "MaxPool" if operation == "max_pool_3x3" else "AveragePool"
            pooled = graph.node(pooling, [x], kernel_shape=[3, 3], strides=strides, pads=[1] * 4)
            scale, shift = (moment * np.float32(gain) for moment in graph.moments(f"{path}.norm"))
            return graph.scaled(pooled, scale, shift)
        case "none":
            nothing = graph.node("Mul", [x, graph.constant(np.zeros(1, np.float32))])
            return graph.node("MaxPool", [nothing], kernel_shape=[1, 1], strides=strides)
    raise ValueError(f"no operation is called {operation!r}")


def _model(graph: _Graph, ways: int, metadata: dict[str, str]) -> bytes:
    image = graph.config.image
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", *image.shape])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", ways]) for name in ("logits", "probabilities")
    ]
    if any("novelty" in node.output for node in graph.nodes):
        outputs.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["n"]))
    body = helper.make_graph(graph.nodes, "lamanas", [images], outputs, graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(model, {"format": FORMAT, "image": json.dumps(asdict(image)), **metadata})
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
