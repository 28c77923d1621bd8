"""Warnings about support sets that little can be learned from: blank images, and photos instead of drawings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array

# A drawing is strokes on an empty ground. After preprocessing its outermost pixels have next to no ink, and the inside
# of a broad stroke is full ink, not grey. Averaged over the 25 images of an episode, Omniglot, synthetic glyphs, digits
# and typefaces have at most 0.010 ink at the border and a grey share of 0.41 inside; of seven kinds of photos, and four
# of them cut out on white, each exceeds one of the limits.
BORDER_INK = 0.02
GREY_INSIDE = 0.55
# Fewer inside pixels than this share of the image say nothing about grey.
INSIDE = 0.02
PAPER, FULL = 0.1, 0.75
# An image whose ink nowhere exceeds this (0..1) is blank.
BLANK = 0.04


def warnings_of(
    spec: ImageSpec, card: dict[str, Any], support: UInt8Array, labels: npt.NDArray[np.int64], classes: Sequence[str]
) -> tuple[str, ...]:
    """What a user should know about the images before relying on predictions; usually nothing.

    ``support``: uint8 (n, c, h, w), preprocessed; ``labels``: int64 (n,), indices of ``classes``; ``card``: that of the
    meta-model, whose ``domain`` describes its training images.
    """
    blank = np.ptp(support, axis=(1, 2, 3)) <= 255 * BLANK
    found = [_about_blanks(blank, labels, classes)] if blank.any() else []
    rest = support[~blank].astype(np.float32) / 255
    domain = card.get("domain")
    if len(rest) and isinstance(domain, dict):
        found += _about_photos(rest, domain) if spec.drawings else _about_brightness(rest, domain)
    return tuple(found)


def _about_blanks(blank: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    empty = [name for label, name in enumerate(classes) if blank[labels == label].all()]
    if empty:
        named = ", ".join(f'"{name}"' for name in empty[:5]) + (", ..." if len(empty) > 5 else "")
        return f"All images of {named} are blank, so this class cannot be told apart. Send other images for it."
    first = classes[int(labels[blank][0])]
    return f'{int(blank.sum())} of the images are blank, for example in "{first}". Remove or replace them.'


def _about_photos(drawings: npt.NDArray[np.float32], domain: dict[str, Any]) -> list[str]:
    if border_ink(drawings) <= BORDER_INK and grey_inside(drawings) <= GREY_INSIDE:
        return []
    return [
        f"These look like photos. The model was trained on drawings ({domain['name']}), and tells photos apart hardly "
        "better than by chance. Send drawings, characters or symbols: dark strokes on a plain light ground, or the "
        "reverse."
    ]


def _about_brightness(photos: npt.NDArray[np.float32], domain: dict[str, Any]) -> list[str]:
    mean, (low, high) = float(photos.mean()), domain["ink"]
    if low <= mean <= high:
        return []
    return [
        f"These images look unlike the meta-model's training data ({domain['name']}): their mean brightness is "
        f"{mean:.2f}, outside its usual range of {low:.2f} to {high:.2f}. Predictions may be unreliable."
    ]


def border_ink(drawings: npt.NDArray[np.float32]) -> float:
    """The mean ink of the outermost pixels, in 0..1, of drawings (n, c, h, w) in 0..1."""
    edges = (drawings[..., 0, :], drawings[..., -1, :], drawings[..., :, 0], drawings[..., :, -1])
    return float(np.mean([edge.mean() for edge in edges]))


def grey_inside(drawings: npt.NDArray[np.float32]) -> float:
    """The share of grey pixels, in 0..1, among those inside of something: all pixels around them, 5 x 5, have ink.

    ``drawings``: (n, c, h, w) in 0..1. The mean over images; 0 for an image with hardly an inside.
    """
    inked = np.pad(drawings > PAPER, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=True)
    inside = np.lib.stride_tricks.sliding_window_view(inked, (5, 5), axis=(2, 3)).all(axis=(-2, -1))
    grey = inside & (drawings < FULL)
    areas, shares = inside.mean(axis=(1, 2, 3)), grey.sum(axis=(1, 2, 3)) / np.maximum(1, inside.sum(axis=(1, 2, 3)))
    return float(np.where(areas >= INSIDE, shares, 0).mean())
