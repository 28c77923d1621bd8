"""The handwritten digits included in scikit-learn: a domain that the shipped meta-model was not trained on."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 80


def write_folders(folder: Path) -> None:
    """Write ``folder/<digit>/<NNNN>.png``: the 1,797 digits, black on white.

    Each image of 8 x 8 pixels gets a margin of one pixel and is enlarged to 80 x 80. Raises ImportError without
    scikit-learn.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (ink, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        paper = 255 - np.pad(ink * (255 / 16), 1).round().astype(np.uint8)
        target = folder / str(digit)
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(paper).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(target / f"{number:04d}.png")
