"""Backbones that do not ship with the package, made by hand: their one map is the image, averaged over squares."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lamanas_core.backbones.runtime import open_backbone
from lamanas_core.backbones.storage import named, own_file
from lamanas_core.files import write_whole


def write(seed: int, *, channels: int = 3, size: int = 224, side: int = 7) -> str:
    """Writes the file of a backbone to this machine's data directory; returns its name. ``seed``: a very small number
    that it adds, so that each has a name of its own."""
    square = [size // side] * 2
    shape: list[str | int | None] = ["n", channels, side, side]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("AveragePool", ["floats"], ["means"], kernel_shape=square, strides=square),
            helper.make_node("Add", ["means", "seed"], [f"map{side}"]),
        ],
        "means",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", channels, size, size])],
        [helper.make_tensor_value_info(f"map{side}", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array(1e-9 * seed, np.float32), "seed")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    name = named("means.own", model.SerializeToString())
    write_whole(own_file(name), model.SerializeToString())
    return name


def move_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process is on a machine with this data directory, and has no backbone open."""
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(folder))
    open_backbone.cache_clear()
