"""Crops of photos: what the camera would have seen a little nearer and to the side.

One photo does not tell how photos of the same thing differ; its crops tell a part of it (``heads.gaussian``).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# A crop has this fraction of the image's side.
SIDE = 3 / 4
# Where the crops lie, as fractions of what is left above and to the left: in the middle, and in two opposite corners.
PLACES = ((0.5, 0.5), (0.0, 0.0), (1.0, 1.0))
# Each takes as long as an image, and of many images less is to be learned from them.
MOST_IN_ALL = 100


def crops_of_each(images: int, most: int) -> int:
    """How many crops there are of each of ``images`` images: ``most``, or fewer, so that there are at most
    ``MOST_IN_ALL``.
    """
    return min(most, MOST_IN_ALL // images)


def cropped(images: Tensor, count: int) -> Tensor:
    """The first ``count`` crops of each image, at the size of the image: uint8 (n, c, size, size) -> uint8
    (n, ``count``, c, size, size). Raises ValueError if there are not so many.
    """
    if not 0 < count <= len(PLACES):
        raise ValueError(f"{count} crops of an image; there are 1 to {len(PLACES)}")
    size = images.shape[-1]
    side = round(SIDE * size)
    found = []
    for down, right in PLACES[:count]:
        top, left = round(down * (size - side)), round(right * (size - side))
        crop = images[:, :, top : top + side, left : left + side].float()
        larger = F.interpolate(crop, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
        found.append(larger.clamp(0, 255).round().to(torch.uint8))
    return torch.stack(found, dim=1)
