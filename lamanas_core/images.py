"""Decoding and preprocessing of image files, the same for training, adaptation and prediction."""

import io
import struct

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from lamanas_core.image_spec import ImageSpec

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")

TWICE_GREY = 2 * np.arange(256, dtype=np.int64)

UInt8Array = npt.NDArray[np.uint8]


class ImageError(ValueError):
    """The bytes are not a supported, intact image; the message gives the reason."""


def load(data: bytes, spec: ImageSpec, *, max_pixels: int) -> UInt8Array:
    """``decode`` and ``preprocess``: uint8 of shape ``spec.shape``. Raises ImageError and MemoryError."""
    image = decode(data, max_pixels=max_pixels)
    try:
        return preprocess(image, spec)
    except MemoryError:  # not a fault of the image
        raise
    except Exception as error:  # Pillow may load a damaged file without complaint and fail at its conversion
        raise ImageError(f"the image is damaged ({_reason(error)})") from None


def decode(data: bytes, *, max_pixels: int) -> Image.Image:
    """The first frame of a PNG, JPEG, WebP or GIF file in its own mode, rotated according to its EXIF orientation.

    Its size is read from the header and compared with ``max_pixels`` before any pixel is decoded. Raises ImageError.
    """
    if not data:
        raise ImageError("the file is empty")
    _refuse_large(_webp_canvas(data), max_pixels)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError("not a PNG, JPEG, WebP or GIF image") from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {max_pixels} pixels") from None
    except Exception as error:  # a damaged header can make Pillow's readers raise any exception
        raise ImageError(f"the image's header is damaged ({_reason(error)})") from None
    _refuse_large(image.size, max_pixels)
    try:
        image.load()
    except Exception as error:  # as above; OSError for a truncated file
        raise ImageError(f"the image is truncated or damaged ({_reason(error)})") from None
    return _upright(image)


def preprocess(image: Image.Image, spec: ImageSpec) -> UInt8Array:
    """An image of any size and mode as a uint8 array of shape ``spec.shape``.

    Transparent pixels are composited on white. With ``normalise_polarity`` the background (the median of the border)
    becomes 0 and the strokes become up to 255, whichever is darker: a drawing and its negative give identical arrays.
    The image is scaled to fit, keeping its aspect ratio, and centred on a square of its background.
    """
    flat = _opaque(image, "L" if spec.channels == 1 else "RGB")
    bands = [_fit(band, spec) for band in (flat.split() if spec.channels > 1 else (flat,))]
    return np.stack(bands)


def to_png(array: UInt8Array, spec: ImageSpec) -> bytes:
    """A PNG file of a preprocessed image, uint8 of shape ``spec.shape``, for display.

    Dark on light if polarity was normalised.
    """
    displayed = 255 - array if spec.normalise_polarity else array
    buffer = io.BytesIO()
    Image.fromarray(displayed[0] if spec.channels == 1 else displayed.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def _refuse_large(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} is more than {max_pixels} pixels")


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Width and height in an extended WebP header; (0, 0) for any other file.

    Pillow allocates the whole canvas while it opens such a file, before its size can be checked.
    """
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8X" or len(data) < 30:
        return (0, 0)
    width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    return (width, height)


def _upright(image: Image.Image) -> Image.Image:
    if image.format == "PNG" and not image.info:  # no metadata, so no orientation
        return image
    try:
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, struct.error):
        return image  # only the EXIF block is damaged; the pixels are intact


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """The image in ``mode``, "L" or "RGB", composited on white."""
    if image.mode.startswith("I"):
        image = _from_16_bit(image)
    elif image.mode == "F":
        image = Image.fromarray(np.clip(np.nan_to_num(np.asarray(image)), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        overlay = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay).convert("RGB")
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _from_16_bit(image: Image.Image) -> Image.Image:
    """An 8-bit copy of a 16-bit grey image; its transparent grey value, if it has one, becomes white."""
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    grey = (values * 255 + 32767) // 65535
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey.astype(np.uint8))


def _fit(band: Image.Image, spec: ImageSpec) -> UInt8Array:
    raw = band.tobytes()
    pixels = np.frombuffer(raw, np.uint8).reshape(band.height, band.width)
    background = _background(pixels)
    if spec.normalise_polarity:
        table, background = _polarity_table(pixels, background), 0.0
        band = Image.frombytes("L", band.size, raw.translate(table))  # Image.point takes twice as long
    longer = max(band.size)
    width, height = (max(1, round(side * spec.size / longer)) for side in band.size)
    # Scaled before padding: a square around an image of 16,000,000 x 1 pixels would not fit into memory.
    shrinks = longer >= spec.size
    scaled = band.resize((width, height), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
    square = np.full((spec.size, spec.size), int(background), dtype=np.uint8)
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
        raster = deviation[pixels.ravel()]
        ink = int(raster[np.argmax(raster != 0)])
    if ink == 0:
        return bytes(256)
    span = twice if ink < 0 else 510 - twice
    towards_ink = np.maximum(deviation if ink > 0 else -deviation, 0)
    return ((towards_ink * 510 + span) // (2 * span)).astype(np.uint8).tobytes()


def _reason(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__
