"""The stem of the paper's ResNet-18 variant."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lamanas_core.config import NetworkConfig
from lamanas_core.search.normalisation import Normalisation, Statistics

RESNET_SIDE = 224
# torchvision's names of a ResNet-18's tensors -> ours.
RESNET_NAMES = {"conv1.weight": "first.weight", "bn1.weight": "norm.weight", "bn1.bias": "norm.bias"}


class ResNetStem(nn.Module):
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
        self.behind_norm = Normalisation(config.channels)

    def forward(self, x: Tensor, statistics: Statistics) -> Tensor:
        x = F.interpolate(self.to_colour(x), size=RESNET_SIDE, mode="bilinear", align_corners=False)
        x = F.max_pool2d(F.relu(self.norm(self.first(x), statistics)), 3, 2, 1)
        normalised: Tensor = self.behind_norm(self.behind(x), statistics)
        return normalised


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
