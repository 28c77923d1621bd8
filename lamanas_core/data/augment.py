"""Random changes of images: affine ones against overfitting, and the styles that adaptation is trained for."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.image_spec import ImageSpec


def random_affine(images: Tensor, spec: ImageSpec, generator: torch.Generator) -> Tensor:
    """float (n, c, h, w): each image turned (12 degrees), scaled (15 %), sheared (0.15) and shifted (8 %) at random.

    Beyond its edge lies the background, 0, where ``spec`` knows one; a photo has none and goes on mirrored.
    """
    n = len(images)

    def uniform(limit: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * limit

    angle, shear = uniform(math.radians(12)), uniform(0.15)
    scale_x, scale_y = 1 + uniform(0.15), 1 + uniform(0.15)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = torch.stack(
        [cos * scale_x, -sin * scale_y + shear, uniform(0.16), sin * scale_x, cos * scale_y, uniform(0.16)], dim=1
    )
    grid = F.affine_grid(rows.view(n, 2, 3).to(images.device), list(images.shape), align_corners=False)
    padding = "zeros" if spec.normalise_polarity else "reflection"
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def restyled(images: Tensor, spec: ImageSpec, generator: torch.Generator) -> Tensor:
    """float (n, c, h, w) in 0..1: the same images in one random style, common to all of them. All in 0..1.

    Where ``spec`` knows ink from background these are drawings, ink high; otherwise photos.
    """
    return _redrawn(images, generator) if spec.normalise_polarity else _retaken(images, generator)


def _redrawn(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each with its own chance: a thicker pen, a coarse scan, stretched and sheared as a whole, another contrast,
    grain."""
    if _uniform(0, 1, generator) < 0.5:
        kernel = ((3, 3), (3, 1), (1, 3))[int(torch.randint(3, (), generator=generator))]
        images = F.max_pool2d(images, kernel, 1, (kernel[0] // 2, kernel[1] // 2))
    if _uniform(0, 1, generator) < 0.5:
        images = _coarse(images, generator)
    if _uniform(0, 1, generator) < 0.5:
        across = [_uniform(0.6, 1.6, generator), _uniform(-0.3, 0.3, generator), 0.0]
        rows = [across, [0.0, _uniform(0.6, 1.6, generator), 0.0]]
        grid = F.affine_grid(torch.tensor([rows]), [1, *images.shape[1:]], align_corners=False)
        images = F.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=False)
    if _uniform(0, 1, generator) < 0.3:
        images = images.clamp(0, 1) ** _uniform(0.4, 2.5, generator)
    if _uniform(0, 1, generator) < 0.2:
        images = images + _uniform(0.02, 0.15, generator) * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1)


def _retaken(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each with its own chance: a coarse camera, light of another colour (less of each), another exposure."""
    if _uniform(0, 1, generator) < 0.5:
        images = _coarse(images, generator)
    if _uniform(0, 1, generator) < 0.5:
        images = images * (0.5 + 0.5 * torch.rand(images.shape[1], 1, 1, generator=generator))
    if _uniform(0, 1, generator) < 0.5:
        images = images.clamp(0, 1) ** _uniform(0.5, 2.0, generator)
    return images.clamp(0, 1)


def _coarse(images: Tensor, generator: torch.Generator) -> Tensor:
    """As from a device with 7 to 14 pixels a side for every 28."""
    side = images.shape[-1]
    small = F.interpolate(images, size=(int(_uniform(7, 15, generator)) * side // 28,) * 2, mode="area")
    return F.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
