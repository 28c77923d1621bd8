"""A classifier on a backbone and the backbone as one ONNX file, for use elsewhere."""

from collections.abc import Iterable

import onnx
from onnx import helper

from lamanas_core.backbones.storage import backbone_file


def joined(artifact: bytes) -> bytes:
    """The artifact of an episode as a file that needs no other: with the input ``images``, uint8 (n, c, size, size).

    Raises BackboneError if its backbone is missing.
    """
    tail = onnx.load_model_from_string(artifact)
    metadata = {entry.key: entry.value for entry in tail.metadata_props}
    name = metadata.pop("backbone", None)
    if name is None:
        return artifact
    backbone = onnx.load_model_from_string(backbone_file(name))
    # An empty name stands for an optional input that is not given.
    public = {"", *(entry.name for entry in (*backbone.graph.output, *backbone.graph.input))}
    _rename(backbone.graph.node, public)
    for constant in backbone.graph.initializer:
        constant.name = f"backbone_{constant.name}"
    body = helper.make_graph(
        [*backbone.graph.node, *tail.graph.node],
        "lamanas",
        list(backbone.graph.input),
        list(tail.graph.output),
        [*backbone.graph.initializer, *tail.graph.initializer],
    )
    model = helper.make_model(body, opset_imports=list(tail.opset_import), ir_version=tail.ir_version)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _rename(nodes: Iterable[onnx.NodeProto], public: set[str]) -> None:
    """Put a prefix before all names but the ``public`` ones: both graphs number theirs from 0."""
    for node in nodes:
        node.input[:] = [name if name in public else f"backbone_{name}" for name in node.input]
        node.output[:] = [name if name in public else f"backbone_{name}" for name in node.output]
