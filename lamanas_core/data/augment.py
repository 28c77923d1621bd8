"""Augmentation: affine transformations against overfitting, and styles so that meta-training requires adaptation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.image_spec import ImageSpec
from lamanas_core.recipe import Affine, Styles


def random_affine(images: Tensor, spec: ImageSpec, recipe: Affine, generator: torch.Generator) -> Tensor:
    """Images, float (n, c, h, w), each rotated, scaled, sheared and shifted at random within the limits of ``recipe``.

    Outside a drawing (``ImageSpec.drawings``) is its background, 0; photos are continued by reflection.
    """
    n = len(images)

    def uniform(limit: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * limit

    angle, shear = uniform(math.radians(recipe.degrees)), uniform(recipe.shear)
    scale_x, scale_y = 1 + uniform(recipe.scale), 1 + uniform(recipe.scale)
    cos, sin = torch.cos(angle), torch.sin(angle)
    across = [cos * scale_x, -sin * scale_y + shear, uniform(recipe.shift)]
    rows = torch.stack([*across, sin * scale_x, cos * scale_y, uniform(recipe.shift)], dim=1)
    grid = F.affine_grid(rows.view(n, 2, 3).to(images.device), list(images.shape), align_corners=False)
    padding = "zeros" if spec.drawings else "reflection"
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def restyled(images: Tensor, spec: ImageSpec, recipe: Styles, generator: torch.Generator) -> Tensor:
    """Images, float (n, c, h, w) in 0..1, in one random style common to all; the result has the same shape and range.

    Drawings (``ImageSpec.drawings``), whose ink is 1, and photos have styles of their own.
    """
    return (_redrawn if spec.drawings else _retaken)(images, recipe, generator)


def _redrawn(images: Tensor, recipe: Styles, generator: torch.Generator) -> Tensor:
    """Each with its own probability: a thicker pen, a coarse scan, stretching and shearing, a contrast curve, noise."""
    if chance(recipe.thicker_pen, generator):
        kernel = ((3, 3), (3, 1), (1, 3))[int(torch.randint(3, (), generator=generator))]
        images = F.max_pool2d(images, kernel, 1, (kernel[0] // 2, kernel[1] // 2))
    if chance(recipe.coarse, generator):
        images = _coarse(images, recipe, generator)
    if chance(recipe.stretched, generator):
        across = [_uniform(*recipe.stretch, generator), _uniform(-recipe.slant, recipe.slant, generator), 0.0]
        rows = [across, [0.0, _uniform(*recipe.stretch, generator), 0.0]]
        grid = F.affine_grid(torch.tensor([rows]), [1, *images.shape[1:]], align_corners=False)
        images = F.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=False)
    if chance(recipe.contrast, generator):
        images = images.clamp(0, 1) ** _uniform(*recipe.contrast_power, generator)
    if chance(recipe.grain, generator):
        strength = _uniform(*recipe.grain_strength, generator)
        images = images + strength * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1)


def _retaken(images: Tensor, recipe: Styles, generator: torch.Generator) -> Tensor:
    """Each with its own probability: a low resolution, a coloured (and darker) light, a different exposure, false
    colours as of other kinds of camera (channels in another order, some of them inverted), and shades of grey.
    """
    if chance(recipe.coarse, generator):
        images = _coarse(images, recipe, generator)
    if chance(recipe.coloured_light, generator):
        span = 1 - recipe.darkest_light
        images = images * (recipe.darkest_light + span * torch.rand(images.shape[1], 1, 1, generator=generator))
    if chance(recipe.exposure, generator):
        images = images.clamp(0, 1) ** _uniform(*recipe.exposure_power, generator)
    if chance(recipe.false_colours, generator):
        channels = images.shape[1]
        inverted = torch.rand(channels, 1, 1, generator=generator) < 0.5
        images = images[:, torch.randperm(channels, generator=generator)]
        images = torch.where(inverted, 1 - images, images)
    if chance(recipe.grey, generator):
        images = images.mean(1, keepdim=True).expand_as(images)
    return images.clamp(0, 1)


def _coarse(images: Tensor, recipe: Styles, generator: torch.Generator) -> Tensor:
    """The images at a low resolution, scaled back to their size."""
    side = images.shape[-1]
    pixels = int(_uniform(recipe.coarsest, recipe.finest, generator)) * side // 28
    small = F.interpolate(images, size=(pixels, pixels), mode="area")
    return F.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)


def chance(probability: float, generator: torch.Generator) -> bool:
    """True with the given ``probability`` (0..1)."""
    return bool(torch.rand((), generator=generator) < probability)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
