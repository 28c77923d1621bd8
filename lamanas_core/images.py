"""Image files as arrays for a network, the same for training, adaptation and prediction."""

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from lamanas_core.deep_samples import grey_of_8_bits
from lamanas_core.image_files import ImageError, decode, reason
from lamanas_core.image_spec import ImageSpec

# A JPEG whose shorter side has at least twice as many pixels is read at a fraction of its size.
LEAST_SIDE = 512
# Where nothing is darker than this grey, marks on white cannot be told from it.
LIGHTEST_ON_WHITE = 192
# Images are converted in parts of as many pixels, for little memory beside the image itself.
PIXELS_AT_ONCE = 2**20

TWICE_GREY = 2 * np.arange(256, dtype=np.int64)

UInt8Array = npt.NDArray[np.uint8]


def load(data: bytes, spec: ImageSpec, *, max_pixels: int) -> UInt8Array:
    """``decode`` and ``preprocess``: uint8 of shape ``spec.shape``. Raises ImageError and MemoryError."""
    return load_for(data, [spec], max_pixels=max_pixels)[0]


def load_for(data: bytes, specs: Sequence[ImageSpec], *, max_pixels: int) -> list[UInt8Array]:
    """As ``load``, an array for each of ``specs``; the file is decoded once."""
    image = decode(data, max_pixels=max_pixels, side=max(LEAST_SIDE, *(2 * spec.size for spec in specs)))
    try:
        return [preprocess(image, spec) for spec in specs]
    except MemoryError:  # not a fault of the image
        raise
    except Exception as error:  # Pillow may load a damaged file without complaint and fail at its conversion
        raise ImageError(f"the image is damaged ({reason(error)})") from None


def preprocess(image: Image.Image, spec: ImageSpec) -> UInt8Array:
    """An image of any size and mode as a uint8 array of shape ``spec.shape``.

    Transparent pixels are composited on white, or on black if all that is visible is too light for white. Where a
    grey file has 16 bits a sample of which only the lowest are used, they are stretched to the whole range, as
    ``decode`` does with colours.

    Drawings (``spec.drawings``) are scaled to fit, keeping their aspect ratio, and centred on a square of their
    background. The background (the median of the border) becomes 0 and the strokes become up to 255, whichever is
    darker: a drawing and its negative give identical arrays. Photos are scaled so that the shorter side fits, and the
    middle of the longer one is kept; colours are converted to sRGB from the profile in the file.
    """
    mode = "L" if spec.channels == 1 else "RGB"
    plain = grey_of_8_bits(image)
    if spec.drawings:
        flat = _opaque(plain, mode)
    else:
        kept = plain.mode if plain.mode in ("L", "RGB", "CMYK") and not plain.has_transparency_data else "RGB"
        flat = _opaque(_square(_opaque(plain, kept), spec.size, image.info.get("icc_profile")), mode)
    bands = flat.split() if spec.channels > 1 else (flat,)
    return np.stack([_fit(band, spec) if spec.drawings else np.asarray(band) for band in bands])


def to_png(array: UInt8Array, spec: ImageSpec) -> bytes:
    """A PNG file of a preprocessed image, uint8 of shape ``spec.shape``, for display.

    Dark on light if polarity was normalised.
    """
    displayed = 255 - array if spec.normalise_polarity else array
    buffer = io.BytesIO()
    Image.fromarray(displayed[0] if spec.channels == 1 else displayed.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """The image in ``mode``, "L", "RGB" or "CMYK", without transparency."""
    if image.mode == mode and not image.has_transparency_data:
        return image
    whole = Image.new(mode, image.size)
    for ground in ("white", "black"):
        darkest = _compose(image, whole, ground)
        if darkest < LIGHTEST_ON_WHITE:
            break
    return whole


def _compose(image: Image.Image, whole: Image.Image, ground: str) -> int:
    """Draws the image, on this ground if it has transparency, on ``whole``. Returns the darkest grey value; 0 if there
    is no transparency.

    It is done in parts, as several copies are needed.
    """
    width, height = image.size
    rows = max(1, PIXELS_AT_ONCE // width)
    darkest = 255 if image.has_transparency_data else 0
    for top in range(0, height, rows):
        part = image.crop((0, top, width, min(top + rows, height)))
        if image.has_transparency_data:
            part = part.convert("RGBA")
            part = Image.alpha_composite(Image.new("RGBA", part.size, ground), part).convert("RGB")
            darkest = min(darkest, int(np.asarray(part.convert("L")).min()))
        elif part.mode not in ("1", "L", "RGB"):  # to grey by way of RGB
            part = part.convert("RGB")
        whole.paste(part.convert(whole.mode), (0, top))
    return darkest


def _square(image: Image.Image, size: int, profile: bytes | None) -> Image.Image:
    """The square in the middle, scaled to ``size`` (antialiased), in sRGB if the file has a valid ICC profile."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    square = image.resize((size, size), Image.Resampling.BICUBIC, box)
    return square if profile is None else _in_srgb(square, profile)


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The image in sRGB; as it is if its profile is damaged or belongs to another mode."""
    try:
        found = ImageCms.profileToProfile(image, io.BytesIO(profile), _srgb(), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if found is None else found


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _fit(band: Image.Image, spec: ImageSpec) -> UInt8Array:
    raw = band.tobytes()
    pixels = np.frombuffer(raw, np.uint8).reshape(band.height, band.width)
    table = _polarity_table(pixels, _background(pixels))
    band = Image.frombytes("L", band.size, raw.translate(table))  # Image.point takes twice as long
    longer = max(band.size)
    width, height = (max(1, round(side * spec.size / longer)) for side in band.size)
    # Scaled before padding: a square around an image of 16,000,000 x 1 pixels would not fit into memory.
    shrinks = longer >= spec.size
    scaled = band.resize((width, height), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
    square = np.zeros((spec.size, spec.size), dtype=np.uint8)
    top, left = (spec.size - height) // 2, (spec.size - width) // 2
    square[top : top + height, left : left + width] = np.asarray(scaled)
    return square


def _background(pixels: UInt8Array) -> float:
    """The median of the border's pixels, a multiple of 0.5 in 0..255."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    border.sort()  # several times as fast as np.median for so few values
    return (int(border[(len(border) - 1) // 2]) + int(border[len(border) // 2])) / 2


def _polarity_table(pixels: UInt8Array, background: float) -> bytes:
    """A lookup table for the 256 grey values that maps the background to 0 and full ink to 255.

    Integer arithmetic only, so that the negative of ``pixels`` gets exactly the mirrored table.
    """
    twice = int(2 * background)
    deviation = TWICE_GREY - twice
    ink = 2 * int(pixels.sum(dtype=np.int64)) - twice * pixels.size
    if ink == 0:  # darker and lighter pixels balance: the first pixel that differs from the background decides
        raster = pixels.ravel()
        ink = int(deviation[raster[np.argmax((deviation != 0)[raster])]])
    if ink == 0:
        return bytes(256)
    span = twice if ink < 0 else 510 - twice
    towards_ink = np.maximum(deviation if ink > 0 else -deviation, 0)
    return ((towards_ink * 510 + span) // (2 * span)).astype(np.uint8).tobytes()
