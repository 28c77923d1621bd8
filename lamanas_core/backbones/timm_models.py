"""Backbones from the package timm: exported once to an ONNX file, and then used as the shipped one.

The maps are those of a network's last two stages, or the last one alone if both have as many positions, as in a vision
transformer. Of the layers behind them only a 1 x 1 convolution with a ReLU6 is used (see ``Backbone.head``), which
EfficientNet-Lite and MobileNetV2 have.
"""

import warnings
from tempfile import NamedTemporaryFile
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from lamanas_core.backbones.runtime import HEAD
from lamanas_core.backbones.storage import BackboneError, named, own_file
from lamanas_core.files import write_whole
from lamanas_core.onnx_writer import OPSET
from lamanas_core.torchvision_modules import imported

PREFIX = "timm:"
WEIGHTS = "model.safetensors"
SIDE = 224


def exported(source: str) -> str:
    """Download the network ``source``, "timm:" and a name in timm, and export it to the folder of own backbones.

    Returns the backbone's name, which is the same each time. Weights are read from safetensors only, whereas timm would
    also take pickles. Raises BackboneError.
    """
    name = source.removeprefix(PREFIX)
    if name == source:
        raise BackboneError(f"there is no backbone {source!r}: give {PREFIX}NAME with the name of a network in timm")
    try:
        timm = imported("timm")
    except ImportError as error:
        raise BackboneError("timm is not installed: pip install 'lamanas[backbones]'") from error
    if not timm.is_model(name):
        raise BackboneError(f"timm has no network {name!r}: its list is at https://huggingface.co/timm")
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": _weights(timm, name)})
    data = export(model)
    backbone = named(name, data)
    write_whole(own_file(backbone), data)
    return backbone


def _weights(timm: Any, name: str) -> dict[str, Tensor]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
    from safetensors.torch import load_file

    found = timm.get_pretrained_cfg(name)
    if found is None or not found.hf_hub_id:
        raise BackboneError(f"timm has no weights of {name!r} on the Hugging Face Hub")
    try:
        file = hf_hub_download(found.hf_hub_id, WEIGHTS)
    except (EntryNotFoundError, HfHubHTTPError, OSError) as error:
        # A file that is neither here nor can be asked for is "not found", too.
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise BackboneError(f"{found.hf_hub_id} has no {WEIGHTS}, and its pickle is not read") from error
        raise BackboneError(f"the weights of {found.hf_hub_id} cannot be downloaded: {error}") from error
    weights: dict[str, Tensor] = load_file(file)
    return weights


def export(model: Any) -> bytes:
    """The ONNX file of a network of timm, with the inputs and outputs of ``lite0.export``, for the network's own maps.

    Raises BackboneError if it does not have such maps of images of 224 x 224 pixels.
    """
    network = _Maps(model).eval()
    images = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    try:
        with torch.no_grad():
            *before, last = network.maps(images)
            network.count = 2 if before and before[0].shape[-1] > last.shape[-1] else 1
            shapes = {f"map{found.shape[-1]}": found.shape[1:] for found in network.maps(images)}
        # The exporter recommends its successor, which needs a package more.
        with warnings.catch_warnings(action="ignore"), NamedTemporaryFile(suffix=".onnx") as file:
            torch.onnx.export(
                network,
                (images,),
                file.name,
                input_names=["images"],
                output_names=[*shapes, *HEAD[: len(network.head)]],
                dynamic_axes={name: {0: "n"} for name in ("images", *shapes)},
                opset_version=OPSET,
                dynamo=False,
            )
            model_file = onnx.load_model(file.name)
    except (RuntimeError, AssertionError, ValueError, AttributeError) as error:  # of the network, or of the exporter
        words = str(error).partition("\n")[0]
        raise BackboneError(f"this network cannot be exported for images of {SIDE} x {SIDE} pixels: {words}") from None
    for output in model_file.graph.output:
        if output.name in shapes:  # which the exporter does not always find out
            shape = ("n", *shapes[output.name])
            output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, shape))
    data: bytes = model_file.SerializeToString()
    return data


class _Maps(nn.Module):
    """uint8 images -> the last ``count`` maps of a network, and its head if it has one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.count = model, 2
        self.mean, self.std = (255 * torch.tensor(model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
        self.head = nn.ParameterList(_head(model))

    def maps(self, images: Tensor) -> list[Tensor]:
        pixels = (images.float() - self.mean) / self.std
        found: list[Tensor] = self.model.forward_intermediates(pixels, indices=self.count, intermediates_only=True)
        return found

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return *self.maps(images), *self.head


def _head(model: Any) -> tuple[Tensor, ...]:
    """Weight and bias of the convolution behind the last map, with its normalisation; empty if there is none."""
    if type(model).__name__ != "EfficientNet" or not isinstance(model.bn2.act, nn.ReLU6):
        return ()
    weight, norm = model.conv_head.weight, model.bn2
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
