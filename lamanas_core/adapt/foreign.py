"""Warnings about support sets that little can be learned from: blank images, and photos of another brightness."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lamanas_core.image_kinds import BLANK
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array


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
    if len(rest) and isinstance(domain, dict) and not spec.drawings:
        found += _about_brightness(rest, domain)
    return tuple(found)


def _about_blanks(blank: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    empty = [name for label, name in enumerate(classes) if blank[labels == label].all()]
    if empty:
        named = ", ".join(f'"{name}"' for name in empty[:5]) + (", ..." if len(empty) > 5 else "")
        return f"All images of {named} are blank, so this class cannot be told apart. Send other images for it."
    first = classes[int(labels[blank][0])]
    return f'{int(blank.sum())} of the images are blank, for example in "{first}". Remove or replace them.'


def _about_brightness(photos: npt.NDArray[np.float32], domain: dict[str, Any]) -> list[str]:
    mean, (low, high) = float(photos.mean()), domain["ink"]
    if low <= mean <= high:
        return []
    return [
        f"These images look unlike the meta-model's training data ({domain['name']}): their mean brightness is "
        f"{mean:.2f}, outside its usual range of {low:.2f} to {high:.2f}. Predictions may be unreliable."
    ]
