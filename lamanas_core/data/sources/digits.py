"""Handwritten digits that come with scikit-learn: real images of a kind that the shipped meta-model never saw."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 80


def write_folders(folder: Path) -> None:
    """``folder/<digit>/<NNNN>.png``: the 1,797 digits of 8 x 8 pixels, black on white, a margin of one pixel around,
    enlarged to 80 x 80. Raises ImportError where scikit-learn is missing.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (ink, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        paper = 255 - np.pad(ink * (255 / 16), 1).round().astype(np.uint8)
        target = folder / str(digit)
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(paper).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(target / f"{number:04d}.png")
