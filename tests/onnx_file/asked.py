"""Images that people have, made of drawings: scanned, photographed, drawn on nothing, inverted, in other formats."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

UPSIDE_DOWN = 3
EXIF_ORIENTATION = 0x0112
LARGE = "large-scan.jpg"


def write(drawings: Sequence[bytes], folder: Path) -> list[Path]:
    """A file for each drawing, dark on white, of each kind in turn."""
    rng = np.random.default_rng(0)
    files = []
    for number, drawing in enumerate(drawings):
        kind, make = list(KINDS.items())[number % len(KINDS)]
        files.append(folder / f"{number:02}-{kind}")
        make(Image.open(BytesIO(drawing)).convert("L"), rng, files[-1])
    return files


def largest_difference(file: Path) -> int:
    """The largest difference of a pixel value that JavaScript makes of such a file from the service's.

    The service decodes a large JPEG at a fraction of its size, JavaScript gets it whole.
    """
    return 8 if file.name.endswith(LARGE) else 1


def _paper(drawing: Image.Image, side: int, rng: np.random.Generator) -> np.ndarray:
    """Grey values, (side, side), of blurred ink on paper with grain under uneven light."""
    large = drawing.resize((side, side), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(side / 150))
    light = np.linspace(0.95, 0.75, side)[None, :] * np.linspace(1.0, 0.9, side)[:, None]
    return np.clip((40 + 0.8 * np.asarray(large)) * light + rng.normal(0, 4, (side, side)), 0, 255)


def _scan(drawing: Image.Image, rng: np.random.Generator, path: Path) -> None:
    Image.fromarray(_paper(drawing, 400, rng).astype(np.uint8)).save(path)


def _large_scan(drawing: Image.Image, rng: np.random.Generator, path: Path) -> None:
    Image.fromarray(_paper(drawing, 1100, rng).astype(np.uint8)).save(path)


def _photo(drawing: Image.Image, rng: np.random.Generator, path: Path) -> None:
    """A phone's: coloured by the light, and turned, with a note of that in its EXIF data."""
    colours = _paper(drawing, 480, rng)[:, :, None] * [1.0, 0.93, 0.8]
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = UPSIDE_DOWN
    Image.fromarray(colours.astype(np.uint8)).rotate(180).save(path, quality=85, exif=exif)


def _transparent(drawing: Image.Image, rng: np.random.Generator, path: Path, ink: int = 0) -> None:
    alpha = ImageOps.invert(drawing.resize((200, 200), Image.Resampling.BICUBIC))
    bands = [Image.new("L", alpha.size, ink)] * 3
    Image.merge("RGBA", [*bands, alpha]).save(path)


def _light_on_nothing(drawing: Image.Image, rng: np.random.Generator, path: Path) -> None:
    _transparent(drawing, rng, path, ink=240)


def _grey(drawing: Image.Image, rng: np.random.Generator, path: Path) -> None:
    drawing.resize((77, 77), Image.Resampling.BICUBIC).point(lambda value: 90 + value // 2).save(path)


def _negative(drawing: Image.Image, rng: np.random.Generator, path: Path) -> None:
    ImageOps.invert(drawing).save(path)


def _wide(drawing: Image.Image, rng: np.random.Generator, path: Path) -> None:
    drawing.resize((150, 61), Image.Resampling.BICUBIC).save(path, lossless=True)


def _tall(drawing: Image.Image, rng: np.random.Generator, path: Path) -> None:
    drawing.resize((33, 90), Image.Resampling.BICUBIC).convert("P").save(path)


def _small(drawing: Image.Image, rng: np.random.Generator, path: Path) -> None:
    drawing.resize((20, 17), Image.Resampling.BICUBIC).convert("RGB").save(path)


KINDS: dict[str, Callable[[Image.Image, np.random.Generator, Path], None]] = {
    "scan.png": _scan,
    LARGE: _large_scan,
    "photo.jpg": _photo,
    "transparent.png": _transparent,
    "light-on-nothing.png": _light_on_nothing,
    "grey.tif": _grey,
    "negative.png": _negative,
    "wide.webp": _wide,
    "tall.gif": _tall,
    "small.bmp": _small,
}
