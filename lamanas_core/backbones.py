"""What stands in front of the cells.

A new backbone is a class here, or in a file of its own, and a line in ``BACKBONES``.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lamanas_core.config import NetworkConfig
from lamanas_core.onnx_writer import OnnxWriter, array
from lamanas_core.search.normalisation import Batch, Folded, Normalisation, PartMoments

RESNET_SIDE = 224
# torchvision's names of a ResNet-18's tensors -> ours.
RESNET_NAMES = {"conv1.weight": "first.weight", "bn1.weight": "norm.weight", "bn1.bias": "norm.bias"}
# Pixels are 0..255 in an ONNX file, 0..1 in the network.
PIXEL_RANGE = 255


class Backbone(nn.Module, ABC):
    """From images, float (n, c, size, size) in 0..1, to a map (n, channels, side, side). The network normalises the map
    and takes its ReLU."""

    # Whether its parameters belong to θ. Those of one that is frozen are its own: they are neither learned nor adapted,
    # not stored with a meta-model, and must be there once the backbone is made.
    learned: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def make(cls, config: NetworkConfig) -> "Backbone":
        """The backbone for images and channels as ``config`` has them."""

    @abstractmethod
    def forward(self, images: Tensor, moments: PartMoments | None, batch: Batch) -> tuple[Tensor, PartMoments]:
        """The map, and the moments of the backbone's normalisations (see ``Normalisation``)."""

    @abstractmethod
    def onnx(self, writer: OnnxWriter, images: str, moments: PartMoments, folded: Folded) -> str:
        """Write ``forward`` for float images in 0..255, and behind it the network's normalisation, ``folded`` into a
        scale and a shift (channels,), which go into the last convolution; the name of the result."""

    @abstractmethod
    def side(self) -> int:
        """The map's side."""


class ConvolutionBackbone(Backbone):
    """One convolution 3 x 3."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.channels, config.image.channels, 3, 3))
        self.stride, self.image_size = config.stem_stride, config.image.size

    @classmethod
    def make(cls, config: NetworkConfig) -> Backbone:
        return cls(config)

    def forward(self, images: Tensor, moments: PartMoments | None, batch: Batch) -> tuple[Tensor, PartMoments]:
        return F.conv2d(images, self.weight, None, self.stride, 1), ()

    def onnx(self, writer: OnnxWriter, images: str, moments: PartMoments, folded: Folded) -> str:
        stride = (self.stride, self.stride)
        return writer.convolution(images, array(self.weight), folded, stride=stride, input_range=PIXEL_RANGE)

    def side(self) -> int:
        return -(-self.image_size // self.stride)


class ResNetBackbone(Backbone):
    """A 1 x 1 convolution to 3 channels, 224 x 224, ResNet-18's first four layers, a 1 x 1 convolution behind.

    Its four layers are convolution 7 x 7, normalisation (with our statistics), ReLU and max pooling:
    (n, c, h, w) -> (n, channels, 56, 56).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.to_colour = nn.Conv2d(config.image.channels, 3, 1, bias=False)
        self.first = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.norm = Normalisation(64)
        self.behind = nn.Conv2d(64, config.channels, 1, bias=False)

    @classmethod
    def make(cls, config: NetworkConfig) -> Backbone:
        return cls(config)

    def forward(self, images: Tensor, moments: PartMoments | None, batch: Batch) -> tuple[Tensor, PartMoments]:
        x = F.interpolate(self.to_colour(images), size=RESNET_SIDE, mode="bilinear", align_corners=False)
        x, own = self.norm(self.first(x), None if moments is None else moments[0], batch)
        behind: Tensor = self.behind(F.max_pool2d(F.relu(x), 3, 2, 1))
        return behind, (own,)

    def onnx(self, writer: OnnxWriter, images: str, moments: PartMoments, folded: Folded) -> str:
        x = writer.convolution(images, array(self.to_colour.weight), input_range=PIXEL_RANGE)
        sizes = writer.integers(RESNET_SIDE, RESNET_SIDE)
        x = writer.node("Resize", [x, "", "", sizes], mode="linear", axes=[2, 3])
        x = writer.convolution(x, array(self.first.weight), self.norm.folded(moments[0]), stride=(2, 2))
        x = writer.node("MaxPool", [writer.node("Relu", [x])], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        return writer.convolution(x, array(self.behind.weight), folded)

    def side(self) -> int:
        return RESNET_SIDE // 4


BACKBONES: dict[str, type[Backbone]] = {"convolution": ConvolutionBackbone, "resnet18": ResNetBackbone}


def make_backbone(config: NetworkConfig) -> Backbone:
    """The backbone that ``config.stem`` names. Raises ValueError, which names those that there are."""
    if config.stem not in BACKBONES:
        raise ValueError(f"no backbone is called {config.stem!r}; there are {', '.join(sorted(BACKBONES))}")
    backbone = BACKBONES[config.stem].make(config)
    return backbone if backbone.learned else backbone.requires_grad_(False)


def load_pretrained(theta: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """θ with the ResNet-18 stem's weights from a safetensors file with torchvision's names.

    Raises ValueError where one is missing or has another shape, or where θ has no such stem, FileNotFoundError.
    """
    try:
        saved = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
    changed = dict(theta)
    for name, ours in RESNET_NAMES.items():
        target = f"stem.{ours}"
        if target not in theta:
            raise ValueError("this network has no ResNet-18 stem")
        if name not in saved or saved[name].shape != theta[target].shape:
            raise ValueError(f"{path}: {name} of shape {tuple(theta[target].shape)} is not in it")
        changed[target] = saved[name].to(torch.float32)
    return changed
