"""Images whose samples have more than 8 bits, as images of 8 bits.

Cameras write 10 or 12 bits into files of 16: what is white there is not the largest number that the file could hold.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

# What is white in files whose samples have 16 bits or more: of masks, of cameras with 8, 10 and 12 bits, and of all 16.
# In between nothing is stretched: a dark image remains dark.
WHITES = (1, 255, 1023, 4095, 65535)
# The highest byte of what is white for a camera with 12 bits.
DARK = 4095 >> 8
# Images are converted in parts of as many rows, for little memory beside the image itself.
ROWS = 64
# Pillow reads colours of 16 bits in these ways, keeping the first or the second byte of each sample.
SWAPPED = {"16B": "16L", "16L": "16B", "16N": "16B"}


def grey_of_8_bits(image: Image.Image) -> Image.Image:
    """An image of integers or floats as grey with 8 bits; any other as it is.

    The smallest of ``WHITES`` that no value exceeds becomes 255. If the file has a transparent value, its pixels become
    transparent, and do not count.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    transparent = image.info.get("transparency")
    hidden = values == transparent if isinstance(transparent, int) else np.zeros((len(values), 1), bool)
    parts = [slice(top, top + ROWS) for top in range(0, len(values), ROWS)]  # copies of 64 bits are made of a few rows
    brightest = max(float(np.nan_to_num(values[part]).max(where=~hidden[part], initial=0)) for part in parts)
    white = _white(brightest)
    grey = np.empty(values.shape, np.uint8)
    for part in parts:
        if image.mode == "F":
            grey[part] = np.clip(np.nan_to_num(values[part]) * (255 / white), 0, 255)
        else:
            grey[part] = _scaled(values[part].astype(np.int64), int(white))
    found = Image.fromarray(grey)
    if isinstance(transparent, int):
        found.putalpha(Image.fromarray(np.where(hidden, np.uint8(0), np.uint8(255))))
    return found


def tiles_of_low_bytes(image: Image.Image) -> list[ImageFile._Tile] | None:
    """What an opened file's ``tile`` must be for it to load the lower 8 of its 16 bits; None if it has no such colours.

    Otherwise, the higher 8 are loaded.
    """
    if not isinstance(image, ImageFile.ImageFile) or image.mode not in ("RGB", "RGBA") or "transparency" in image.info:
        return None
    tiles = []
    for tile in image.tile:
        args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        mode, _, depth = str(args[0]).partition(";")
        if depth not in SWAPPED:
            return None
        swapped = f"{mode};{SWAPPED[depth]}"
        tiles.append(tile._replace(args=(swapped, *args[1:]) if isinstance(tile.args, tuple) else swapped))
    return tiles or None


def is_dark(high: Image.Image) -> bool:
    """Whether no colour of an image, of which the higher 8 of 16 bits are given, uses more than 12 bits."""
    return all(not any(band.histogram()[DARK + 1 :]) for band in high.split()[:3])


def stretch(high: Image.Image, low: Image.Image) -> None:
    """Puts the colours of 8 bits of an image of 16 into ``high``, of which the higher and lower 8 bits are given.

    The smallest of ``WHITES`` that no colour exceeds becomes 255. An alpha channel remains as it is.
    """
    white = int(_white(max(int(values.max()) for _, values in _parts(high, low))))
    for top, values in _parts(high, low):
        part = np.asarray(high.crop((0, top, high.width, top + len(values)))).copy()
        part[..., :3] = _scaled(values, white)
        high.paste(Image.fromarray(part, high.mode), (0, top))


def _parts(high: Image.Image, low: Image.Image) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """The colours of 16 bits, some rows at a time, each time with the first row's number."""
    for top in range(0, high.height, ROWS):
        box = (0, top, high.width, min(top + ROWS, high.height))
        upper, lower = (np.asarray(image.crop(box))[..., :3].astype(np.int64) for image in (high, low))
        yield top, upper * 256 + lower


def _white(brightest: float) -> float:
    return next((white for white in WHITES if brightest <= white), brightest)


def _scaled(values: npt.NDArray[np.int64], white: int) -> npt.NDArray[np.int64]:
    return (values.clip(0, white) * 255 + white // 2) // white
