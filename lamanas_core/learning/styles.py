"""Styles of drawing: a task drawn by another pen, scanned by another device. What adaptation is meta-trained for."""

import torch
import torch.nn.functional as F
from torch import Tensor


def restyled(images: Tensor, generator: torch.Generator) -> Tensor:
    """float (n, c, h, w) in 0..1, ink high: the same drawings in one random style, common to all of them.

    Each with its own chance: a thicker pen, a coarse scan (7 to 14 pixels a side), stretched and sheared as a whole,
    another contrast, grain. All in 0..1.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    side = images.shape[-1]
    if uniform(0, 1) < 0.5:
        kernel = ((3, 3), (3, 1), (1, 3))[int(torch.randint(3, (), generator=generator))]
        images = F.max_pool2d(images, kernel, 1, (kernel[0] // 2, kernel[1] // 2))
    if uniform(0, 1) < 0.5:
        small = F.interpolate(images, size=(int(uniform(7, 15)) * side // 28,) * 2, mode="area")
        images = F.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
    if uniform(0, 1) < 0.5:
        rows = [[uniform(0.6, 1.6), uniform(-0.3, 0.3), 0.0], [0.0, uniform(0.6, 1.6), 0.0]]
        grid = F.affine_grid(torch.tensor([rows]), [1, *images.shape[1:]], align_corners=False)
        images = F.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=False)
    if uniform(0, 1) < 0.3:
        images = images.clamp(0, 1) ** uniform(0.4, 2.5)
    if uniform(0, 1) < 0.2:
        images = images + uniform(0.02, 0.15) * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1)
