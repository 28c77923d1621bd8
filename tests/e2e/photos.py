"""Photos made up for the tests: colourful, textured, of any size and in any file format."""

import io

import numpy as np
from PIL import Image


def photo(seed: int, width: int = 640, height: int = 480) -> Image.Image:
    """A picture of soft blobs in colours of its seed, grainy as a camera's."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = rng.integers(-12, 13, (height, width, 3), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, form: str = "JPEG", orientation: int = 1) -> bytes:
    """The picture as a file of this format, with an EXIF orientation as cameras write it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, form, exif=exif)
    return buffer.getvalue()


def jpegs(classes: int, images: int) -> list[list[bytes]]:
    """``images`` photos of each of ``classes`` things, as JPEG files."""
    return [[encoded(photo(100 * each + number)) for number in range(images)] for each in range(classes)]
