"""Stems: the fixed layers (the paper's stem) between the image and the first cell.

To add a stem, implement ``Stem`` here or in a new file and register it in ``STEMS``.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lamanas_core.config import NetworkConfig
from lamanas_core.onnx_writer import OnnxWriter, array
from lamanas_core.search.normalisation import Batch, Folded, Normalisation, PartMoments

RESNET_SIDE = 224
# The names of ResNet-18's tensors in torchvision -> in this module.
RESNET_NAMES = {"conv1.weight": "first.weight", "bn1.weight": "norm.weight", "bn1.bias": "norm.bias"}
# The mean and standard deviation of ImageNet's channels, by which images were normalised when ResNet-18 was pretrained.
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Pixels are in 0..255 in an ONNX graph, in 0..1 in the network.
PIXEL_RANGE = 255


class Stem(nn.Module, ABC):
    """Maps images, float (n, c, size, size) in 0..1, to feature maps, float (n, channels, side, side).

    The network then normalises the feature maps and applies a ReLU.
    """

    # Whether its parameters belong to θ. A frozen stem keeps its own parameters: they are neither meta-learned nor
    # adapted, are not stored with a meta-model, and must be loaded by ``make``.
    learned: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def make(cls, config: NetworkConfig) -> "Stem":
        """The stem for the image format and the number of channels in ``config``."""

    @abstractmethod
    def forward(self, images: Tensor, moments: PartMoments | None, batch: Batch) -> tuple[Tensor, PartMoments]:
        """The feature maps, and the moments of the stem's own normalisations (see ``Normalisation``)."""

    @abstractmethod
    def onnx(self, writer: OnnxWriter, images: str, moments: PartMoments, folded: Folded) -> str:
        """Write ``forward`` for float images in 0..255, followed by the network's normalisation.

        ``folded``: that normalisation as a scale and a shift, each (channels,), to be folded into the stem's last
        convolution. Returns the name of the result.
        """

    @abstractmethod
    def side(self) -> int:
        """The side of the feature maps in positions."""


class ConvolutionStem(Stem):
    """One 3 x 3 convolution with the stride ``stem_stride``."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.channels, config.image.channels, 3, 3))
        self.stride, self.image_size = config.stem_stride, config.image.size

    @classmethod
    def make(cls, config: NetworkConfig) -> Stem:
        return cls(config)

    def forward(self, images: Tensor, moments: PartMoments | None, batch: Batch) -> tuple[Tensor, PartMoments]:
        return F.conv2d(images, self.weight, None, self.stride, 1), ()

    def onnx(self, writer: OnnxWriter, images: str, moments: PartMoments, folded: Folded) -> str:
        stride = (self.stride, self.stride)
        return writer.convolution(images, array(self.weight), folded, stride=stride, input_range=PIXEL_RANGE)

    def side(self) -> int:
        return -(-self.image_size // self.stride)


class ResNetStem(Stem):
    """The first four layers of ResNet-18 between two 1 x 1 convolutions (the paper's Section 5).

    A 1 x 1 convolution to 3 channels, which are normalised as ImageNet's, bilinear upsampling to 224 x 224, ResNet-18's
    7 x 7 convolution, normalisation (with the support set's statistics instead of running ones), ReLU and max pooling,
    and a 1 x 1 convolution: float (n, c, h, w) -> float (n, channels, 56, 56).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.to_colour = nn.Conv2d(config.image.channels, 3, 1, bias=False)
        self.first = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.norm = Normalisation(64)
        self.behind = nn.Conv2d(64, config.channels, 1, bias=False)

    @classmethod
    def make(cls, config: NetworkConfig) -> Stem:
        return cls(config)

    def forward(self, images: Tensor, moments: PartMoments | None, batch: Batch) -> tuple[Tensor, PartMoments]:
        mean, deviation = (images.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
        colours = (self.to_colour(images) - mean) / deviation
        x = F.interpolate(colours, size=RESNET_SIDE, mode="bilinear", align_corners=False)
        x, own = self.norm(self.first(x), None if moments is None else moments[0], batch)
        features: Tensor = self.behind(F.max_pool2d(F.relu(x), 3, 2, 1))
        return features, (own,)

    def onnx(self, writer: OnnxWriter, images: str, moments: PartMoments, folded: Folded) -> str:
        mean, deviation = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_DEVIATION, np.float32)
        as_imagenet = (np.reciprocal(deviation), np.negative(mean / deviation))
        x = writer.convolution(images, array(self.to_colour.weight), as_imagenet, input_range=PIXEL_RANGE)
        sizes = writer.integers(RESNET_SIDE, RESNET_SIDE)
        x = writer.node("Resize", [x, "", "", sizes], mode="linear", axes=[2, 3])
        x = writer.convolution(x, array(self.first.weight), self.norm.folded(moments[0]), stride=(2, 2))
        x = writer.node("MaxPool", [writer.node("Relu", [x])], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        return writer.convolution(x, array(self.behind.weight), folded)

    def side(self) -> int:
        return RESNET_SIDE // 4


STEMS: dict[str, type[Stem]] = {"convolution": ConvolutionStem, "resnet18": ResNetStem}


def make_stem(config: NetworkConfig) -> Stem:
    """The stem named by ``config.stem``. Raises ValueError if the name is unknown."""
    if config.stem not in STEMS:
        raise ValueError(f"unknown stem {config.stem!r}; available: {', '.join(sorted(STEMS))}")
    stem = STEMS[config.stem].make(config)
    return stem if stem.learned else stem.requires_grad_(False)


def load_pretrained(theta: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """``theta`` with the weights of its ResNet-18 stem replaced by those in the safetensors file ``path``.

    The file's tensors have torchvision's names; they are converted to float32. Raises FileNotFoundError, and ValueError
    if the file is not a safetensors file, if it lacks a tensor of the right shape, or if θ has no ResNet-18 stem.
    """
    try:
        saved = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    changed = dict(theta)
    for name, ours in RESNET_NAMES.items():
        target = f"stem.{ours}"
        if target not in theta:
            raise ValueError("this network has no ResNet-18 stem")
        if name not in saved or saved[name].shape != theta[target].shape:
            raise ValueError(f"{path} has no tensor {name} of shape {tuple(theta[target].shape)}")
        changed[target] = saved[name].to(torch.float32)
    return changed
