"""Tells drawings from photos: which kind of meta-model a support set is for. Does not import torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from lamanas_core.image_spec import UNLABELLED, ImageKind, ImageSpec
from lamanas_core.images import UInt8Array

# Images are judged at this size, whatever the meta-models take.
JUDGED = ImageSpec(size=64, channels=3, normalise_polarity=False)
# So many images of a support set are judged.
MOST_JUDGED = 32
# They are measured in groups of so many, whose arrays stay in the processor's cache: half the time.
AT_A_TIME = 16
# A drawing is strokes on a ground. Relative to the ground around them, its pixels are either ground, at least this
# bright, or ink, at most this bright, except at the edges of strokes. A photo has all shades in between. (The ground
# itself may be shaded, as in a photo of a sheet of paper.)
GROUND, INK = 0.88, 0.65
# Ground is what is brightest among so many pixels in each direction. A place is inside of something thicker than a
# stroke if all of so many pixels are darker than ``THICK``.
AROUND, STROKE, THICK = 8, 5, 0.8
# Fewer ink pixels than this share are no drawing: the image tells nothing, e.g. a blank sheet or a faint texture.
LEAST_INK = 0.002
# A support set above one of these has photos. Means over the images of 5-way 1-shot episodes: half-tones are at most
# 0.12 of characters and digits, and at least that of photos; deviations of colours are at most 0.012 of photographed
# paper, and 0.03 and more of most photos.
HALF_TONES = 0.13
COLOURS = 0.02
# An image whose values (0..1) differ by no more than this is blank.
BLANK = 0.04

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Judgement:
    """What kind of images a support set has, and how one can tell, in words."""

    kind: ImageKind
    reason: str


def sample(labels: Sequence[int]) -> list[int]:
    """The rows of a support set that are judged, in order: the first image of each class, then the second of each, up
    to ``MOST_JUDGED``. Images without a label may show anything, and are not judged."""
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        if label != UNLABELLED:
            rows.setdefault(label, []).append(row)
    turns = zip_longest(*rows.values())
    return sorted([row for turn in turns for row in turn if row is not None][:MOST_JUDGED])


def judge(images: UInt8Array) -> Judgement:
    """The kind of images, uint8 (n, *JUDGED.shape), n > 0, decided for all of them together."""
    pixels = images.astype(np.float32) / 255
    pixels = pixels[np.ptp(pixels, axis=(1, 2, 3)) > BLANK]
    if not len(pixels):
        return Judgement("drawings", "the images are blank")
    groups = [pixels[start : start + AT_A_TIME] for start in range(0, len(pixels), AT_A_TIME)]
    ink, half_tones, colours = np.concatenate([_measures(group) for group in groups], axis=1)
    inked = ink >= LEAST_INK
    if not inked.any():
        return Judgement("photos", "the images have no strokes")
    if half_tones[inked].mean() > HALF_TONES:
        return Judgement("photos", "the images have half-tones throughout")
    if colours[inked].mean() > COLOURS:
        return Judgement("photos", "the images are coloured")
    return Judgement("drawings", "the images are strokes on a plain ground")


def _measures(pixels: Floats) -> Floats:
    """The share of ink, the share of half-tones, and how far the colours are from each other, of images (n, 3, h, w) in
    0..1; (3, n)."""
    return np.stack([*_ink_and_half_tones(pixels.mean(axis=1)), _colours(pixels)])


def _ink_and_half_tones(grey: Floats) -> tuple[Floats, Floats]:
    """The shares of ink and of half-tones in each of the images, (n, h, w) in 0..1; both (n,).

    The ground is the lighter part of an image or the darker one, whichever leaves less that is thicker than a stroke.
    """
    on_light, on_dark = _shares(grey), _shares(1 - grey)
    ink, half_tones = (
        np.where(on_light[0] <= on_dark[0], light, dark) for light, dark in zip(on_light[1:], on_dark[1:], strict=True)
    )
    return ink, half_tones


def _shares(grey: Floats) -> tuple[Floats, Floats, Floats]:
    """The shares of pixels, each (n,), that are inside of something thicker than a stroke, ink, and half-tones, if the
    ground of the images, (n, h, w) in 0..1, is light."""
    ground: Floats = _filtered(np.add, _filtered(np.maximum, grey, AROUND), AROUND) / (2 * AROUND + 1) ** 2
    relative: Floats = grey / np.maximum(ground, 0.02)
    thick = _filtered(np.maximum, relative, STROKE // 2) < THICK
    ink, half_tones = relative < INK, (relative > INK) & (relative < GROUND)
    thick, ink, half_tones = (part.mean(axis=(1, 2), dtype=np.float32) for part in (thick, ink, half_tones))
    return thick, ink, half_tones


def _filtered(together: Callable[[Floats, Floats], Floats], images: Floats, reach: int) -> Floats:
    """Each pixel of (n, h, w) becomes the maximum or sum of the square that reaches this far in each direction."""
    width = 2 * reach + 1
    for axis in (1, 2):
        beyond = [(reach, reach) if each == axis else (0, 0) for each in range(3)]
        padded = np.moveaxis(np.pad(images, beyond, mode="edge"), axis, 0)
        images = np.moveaxis(_windows(together, padded, width), 0, axis)
    return images


def _windows(together: Callable[[Floats, Floats], Floats], values: Floats, width: int) -> Floats:
    """The maximum or sum of each ``width`` consecutive rows, (n, ...) -> (n - width + 1, ...).

    Put together from windows of half the width: 17 rows take five operations instead of 16.
    """
    if width == 1:
        return values
    half = width // 2
    halves = _windows(together, values, half)
    windows = together(halves[:-half], halves[half:])
    return together(windows[:-1], values[2 * half :]) if width % 2 else windows


def _colours(pixels: Floats) -> Floats:
    """How far the colours of each image, (n, 3, h, w) in 0..1, are from its median colour, brightness aside; (n,)."""
    tints = pixels - pixels.mean(axis=1, keepdims=True)
    distances: Floats = np.abs(tints - np.median(tints, axis=(2, 3), keepdims=True)).mean(axis=(1, 2, 3))
    return distances
