"""Exports the adapted network, pruned by α, as an ONNX graph. Each part of the network writes its own nodes.

A normalisation that follows a convolution is folded into its weight and bias, together with the edge's weight. After a
pooling it remains a scale and a shift: folding it into the next layer would have to cross padding or a ReLU.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict

from onnx import TensorProto

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters
from lamanas_core.artifact import FORMAT
from lamanas_core.heads.base import FittedHead
from lamanas_core.onnx_words import ANSWERS, preparation
from lamanas_core.onnx_writer import OnnxWriter, Value
from lamanas_core.search.network import NetworkMoments


def build(
    learner: TaskLearner,
    parameters: Parameters,
    moments: NetworkMoments,
    head: FittedHead,
    classes: Sequence[str],
    model_version: str,
) -> bytes:
    """The artifact: an ONNX file with the input ``images``, uint8 (n, c, h, w), and the outputs ``logits`` and
    ``probabilities``, float32 (n, ways), and, if novelty is calibrated, ``novelty``, float32 (n,), and ``known``, bool
    (n,).

    ``moments`` and ``head``: of the support set (see ``finish``). ``classes``: the class names, in label order.
    """
    network, writer = learner.network, OnnxWriter()
    features = network.onnx(writer, parameters.theta, network.pruned(parameters.alpha), moments)
    head.onnx(writer, features)
    metadata = {"classes": json.dumps(list(classes)), "model_version": model_version}
    if network.config.backbone is not None:
        metadata["backbone"] = network.config.backbone
    outputs: dict[str, Value] = dict.fromkeys(("logits", "probabilities"), (TensorProto.FLOAT, ("n", len(classes))))
    if any("novelty" in node.output for node in writer.nodes):
        outputs |= {"novelty": (TensorProto.FLOAT, ("n",)), "known": (TensorProto.BOOL, ("n",))}
    image = network.config.image
    described = {"image": json.dumps(asdict(image)), "preparation": preparation(image), "answers": ANSWERS}
    return writer.model("lamanas", network.graph_inputs(), outputs, {"format": FORMAT, **described, **metadata})
