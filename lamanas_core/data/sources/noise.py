"""Images of noise: those of a class have nothing in common, so nothing can be learned, and any accuracy is chance."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, IMAGES, SIDE = 20, 12, 28


def write_folders(folder: Path) -> None:
    """Write ``folder/<NN>/<NN>.png``: 20 classes of 12 images of 28 x 28 independent grey values, from a fixed seed."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        target = folder / f"{label:02d}"
        target.mkdir(parents=True, exist_ok=True)
        for number in range(IMAGES):
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).save(target / f"{number:02d}.png")
