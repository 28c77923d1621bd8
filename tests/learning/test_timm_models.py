"""Backbones from timm: what is exported of a network, and that a photo model is trained on it as on the shipped one.

The networks have random weights; nothing is downloaded.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cli.main import main
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.backbones import timm_models
from lamanas_core.backbones.runtime import Backbone, open_backbone
from lamanas_core.backbones.storage import BackboneError, named
from lamanas_core.config import PRESETS, TrainingConfig
from lamanas_core.meta_model import read
from lamanas_core.torchvision_modules import imported
from tests.learning.test_photo_training import write_photos
from tests.learning.test_taps import assert_adapts, photos

try:
    timm = imported("timm")
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
except ImportError:
    pytest.skip("timm is not installed", allow_module_level=True)

PHOTOS = PRESETS["photos"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(tmp_path))
    return tmp_path / "backbones"


def random_model(name: str) -> Any:
    """A network of timm with random weights, also in its normalisations."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for statistic, values in (("running_mean", (-0.1, 0.1)), ("running_var", (0.5, 2.0))):
                module.get_buffer(statistic).uniform_(*values)
    return model


def opened(folder: Path, model: Any) -> tuple[str, Backbone]:
    data = timm_models.export(model)
    name = named("network", data)
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.onnx").write_bytes(data)
    return name, open_backbone(name)


@pytest.mark.parametrize(
    ("network", "shapes", "head"),
    [
        ("mobilenetv2_050", {"map14": (48, 14, 14), "map7": (160, 7, 7)}, True),
        ("test_efficientnet", {"map14": (48, 14, 14), "map7": (64, 7, 7)}, False),  # its next layer has no ReLU6
        ("test_resnet", {"map14": (192, 14, 14), "map7": (96, 7, 7)}, False),
        ("vit_tiny_patch16_224", {"map14": (192, 14, 14)}, False),
    ],
)
def test_the_file_gives_the_maps_of_the_network_and_its_next_layer(
    own_folder: Path, network: str, shapes: dict[str, tuple[int, ...]], head: bool
) -> None:
    model = random_model(network)
    _, backbone = opened(own_folder, model)
    assert backbone.shapes == shapes
    image = photos(1)
    maps = backbone.maps(image)
    mean, deviation = (torch.tensor(model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    pixels = (torch.from_numpy(image) / 255 - mean) / deviation
    with torch.no_grad():
        expected = model.forward_intermediates(pixels, indices=len(shapes), intermediates_only=True)
        following = model.forward_features(pixels).mean((2, 3)) if head else None
    for found, map in zip(maps.values(), expected, strict=True):
        assert np.abs(found - map.numpy()).max() < 1e-3 * np.abs(map.numpy()).max()
    assert backbone.head.keys() == ({"head_weight", "head_bias"} if head else set())
    if following is not None:
        weight, bias = backbone.head["head_weight"][:, :, 0, 0], backbone.head["head_bias"]
        last = np.einsum("oc,cij->oij", weight, maps["map7"][0]) + bias[:, None, None]
        assert np.abs(np.clip(last, 0, 6).mean((1, 2)) - following[0].numpy()).max() < 1e-4


@pytest.mark.parametrize("network", ["test_resnet", "vit_tiny_patch16_224"])
def test_an_exported_network_is_adapted_and_joined(own_folder: Path, network: str) -> None:
    name, _ = opened(own_folder, random_model(network))
    assert_adapts(name)


def on_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Any) -> list[tuple[str, str]]:
    """Lets the weights of ``model`` be what is downloaded; what was asked for."""
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        save_file(model.state_dict(), tmp_path / "downloaded.safetensors")
        return str(tmp_path / "downloaded.safetensors")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def test_a_model_is_trained_on_a_network_by_its_name_and_evaluated(
    own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = random_model("test_resnet")
    asked = on_hub(monkeypatch, tmp_path, network)
    data, run = write_photos(tmp_path / "photos", classes=8, images=3), tmp_path / "run"
    options = ["--preset", "photos", "--warm-up-epochs", "0", "--meta-epochs", "1", "--meta-batch", "1"]
    command = ["train", "--data", str(data), "--run", str(run), "--backbone", "timm:test_resnet.r160_in1k", *options]
    assert main(command) == 0
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]
    (file,) = own_folder.iterdir()
    assert str(file) in capsys.readouterr().err
    assert file.read_bytes() == timm_models.export(network)
    assert read(run).config.network.backbone == file.stem
    assert main([*command, "--resume"]) == 0
    evaluation = ["evaluate", "--data", str(data), "--model", str(run), "--split", "all", "--ways", "2", "--shots", "1"]
    assert main([*evaluation, "--queries", "1", "--episodes", "1"]) == 0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("resnet18", "give timm:NAME"),
        ("timm:resnet1800", "timm has no network 'resnet1800'"),
        ("timm:test_resnet.r160_in1k", "timm/test_resnet.r160_in1k has no model.safetensors"),
    ],
)
def test_what_cannot_be_a_backbone_is_said(
    monkeypatch: pytest.MonkeyPatch, own_folder: Path, source: str, words: str
) -> None:
    def download(repository: str, file: str) -> str:
        raise EntryNotFoundError("404")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(BackboneError, match=words):
        timm_models.exported(source)
    assert not own_folder.exists()


def test_no_pickle_is_read_and_a_missing_network_connection_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def loaded(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a pickle is read")

    def offline(repository: str, file: str) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(torch, "load", loaded)
    monkeypatch.setattr(pickle, "load", loaded)
    on_hub(monkeypatch, tmp_path, random_model("test_resnet"))
    timm_models.exported("timm:test_resnet.r160_in1k")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(BackboneError, match="cannot be downloaded: no connection"):
        timm_models.exported("timm:test_resnet.r160_in1k")


def test_a_network_for_other_images_is_refused() -> None:
    with pytest.raises(BackboneError, match="cannot be exported for images of 224 x 224 pixels"):
        timm_models.export(random_model("vit_tiny_patch16_384"))


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(timm_models, "imported", missing)
    with pytest.raises(BackboneError, match=r"pip install 'lamanas\[backbones\]'"):
        timm_models.exported("timm:resnet18")


def test_a_preset_without_a_backbone_takes_none() -> None:
    with pytest.raises(ValueError, match="preset serving has no backbone"):
        TrainingConfig.from_request({"backbone": "timm:resnet18"})
    config = TrainingConfig.from_request({"preset": "photos", "backbone": PHOTOS.network.backbone})
    assert initial_parameters(config.model_config(), 0).alpha["inputs"].shape == (3,)
