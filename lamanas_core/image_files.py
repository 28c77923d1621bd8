"""Reading of image files: which formats, up to which size, and what is still read of a damaged file."""

import hashlib
import io
import random
import re
import struct
import zlib
from contextlib import suppress
from functools import cache
from itertools import product

from PIL import AvifImagePlugin, Image, ImageOps, UnidentifiedImageError

from lamanas_core import deep_samples

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
NAMES = "PNG, JPEG, WebP, GIF, HEIC, AVIF, BMP or TIFF"
# The part of the limit that a format may use: decoding a WebP takes 16 bytes a pixel, twice as many as any other.
SHARES = {"WEBP": 0.6}
# What scanners, cameras and image editors write. The other codecs of libtiff are rare, and each reads untrusted bytes.
TIFF_CODECS = frozenset({"raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "group3", "group4", "tiff_ccitt"})

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
# Noise for a JPEG that breaks off: pixels that it does not change do not depend on what is missing. It is longer than a
# block, and has all restart markers, since after one that is missing everything else would be skipped.
NOISE = random.Random(0).randbytes(8192).replace(b"\xff", b"")
CONTINUATION = NOISE[:4096] + b"".join(bytes([0xFF, 0xD0 + i % 8]) + NOISE[-512 - i : -i - 1] for i in range(32))
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

# A decoding process has little address space, of which each thread takes some, and there is one for each core.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


class ImageError(ValueError):
    """The bytes are not a supported, intact image; the message gives the reason."""


class DamagedError(ImageError):
    """The file has a supported format, but its header or its pixels cannot be read as they are."""


def decode(data: bytes, *, max_pixels: int, side: int | None = None) -> Image.Image:
    """The first frame or page of an image file in its own mode, rotated according to its EXIF orientation.

    Its size is read from the header and compared with ``max_pixels`` before any pixel is decoded. With ``side``, a JPEG
    may be decoded at 1/2, 1/4 or 1/8 of its size, as long as its shorter side keeps that many pixels. Of colours of 16
    bits the highest 8 are read, unless the lowest 12 are all that is used, which are stretched. A file that only lacks
    its end, or of which only metadata are damaged, is read. Raises ImageError and MemoryError.
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        return _read(data, max_pixels, side)
    except DamagedError:
        repaired = _repaired(data, max_pixels, side)
        if repaired is None:
            raise
        return repaired


def megapixels(pixels: int) -> str:
    """In millions, as short as it is exact: 50_000_000 is "50"."""
    return f"{pixels / 1e6:,.6f}".rstrip("0").rstrip(".")


def _read(data: bytes, max_pixels: int, side: int | None) -> Image.Image:
    _refuse_large(_webp_canvas(data), "WEBP", max_pixels)
    formats = _container_format(data)
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        if data.startswith((PNG_SIGNATURE, JPEG_START)):
            raise DamagedError("the image's header is damaged") from None
        raise ImageError(f"not a {NAMES} image") from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than the {megapixels(max_pixels)} megapixels that are accepted") from None
    except MemoryError:  # not a fault of the image
        raise
    except Exception as error:  # a damaged header can make the readers raise any exception
        raise DamagedError(f"the image's header is damaged ({reason(error)})") from None
    _refuse_large(image.size, image.format or "", max_pixels)
    _refuse_rare_tiff(image)
    try:
        if side is not None and image.format in ("JPEG", "MPO") and min(image.size) >= 2 * side:
            image.draft(None, _reduced(image.size, side))
        tiles = deep_samples.tiles_of_low_bytes(image)
        image.load()
        if tiles and deep_samples.is_dark(image):
            low = Image.open(io.BytesIO(data), formats=formats)
            low.tile = tiles
            low.load()
            deep_samples.stretch(image, low)
    except MemoryError:
        raise
    except Exception as error:  # as above; OSError for a truncated file
        # Messages of libheif and libavif for what Python calls MemoryError.
        if str(error).startswith("Memory allocation") or str(error).endswith("Out of memory"):
            raise MemoryError from None
        raise DamagedError(f"the image is truncated or damaged ({reason(error)})") from None
    _refuse_large(image.size, image.format or "", max_pixels)  # a HEIC may hold more than its header says
    return _upright(image)


def reason(error: Exception) -> str:
    """What a library says about a file, short enough to be passed on."""
    return str(error)[:200] or type(error).__name__


# ---------------------------------------------------------------------- formats and sizes


def _container_format(data: bytes) -> tuple[str, ...]:
    """The formats to try: HEIC and AVIF share a container, whose first box lists what is in it."""
    if data[4:8] != b"ftyp":
        return FORMATS
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    if b"avif" in brands or b"avis" in brands:
        return ("AVIF",)
    register_heif()
    return ("HEIF",)


@cache
def register_heif() -> None:
    """Makes Pillow read HEIC. Its libraries are loaded here, as most processes never need them."""
    import pi_heif

    pi_heif.register_heif_opener(thumbnails=False, decode_threads=1)


def _refuse_large(size: tuple[int, int], form: str, max_pixels: int) -> None:
    width, height = size
    share = SHARES.get(form, 1)
    if width * height > max_pixels * share:
        of = "" if share == 1 else f" for {form}"
        other = "" if share == 1 else ", or send it as JPEG"
        raise ImageError(
            f"{width} x {height} is {megapixels(width * height)} megapixels, more than the "
            f"{megapixels(int(max_pixels * share))} that are accepted{of}: make the image smaller{other}"
        )


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Width and height in an extended WebP header; (0, 0) for any other file.

    Pillow allocates the whole canvas while it opens such a file, before its size can be checked.
    """
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8X" or len(data) < 30:
        return (0, 0)
    width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    return (width, height)


def _refuse_rare_tiff(image: Image.Image) -> None:
    codec = image.info.get("compression")
    if image.format == "TIFF" and codec not in TIFF_CODECS:
        raise ImageError(f"a TIFF compressed with {codec}: save it with LZW or without compression")


def _reduced(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size to ask of ``draft``, which keeps at least that many pixels: the shorter side becomes ``side``."""
    shorter = min(size)
    return (size[0] * side // shorter, size[1] * side // shorter)


def _upright(image: Image.Image) -> Image.Image:
    if image.format == "PNG" and not image.info:  # no metadata, so no orientation
        return image
    # If only the EXIF block is damaged, the pixels are intact.
    with suppress(OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, struct.error):
        ImageOps.exif_transpose(image, in_place=True)  # otherwise it copies every image
    return image


# ---------------------------------------------------------------------- damage


def _repaired(data: bytes, max_pixels: int, side: int | None) -> Image.Image | None:
    """The image, if all its pixels are in the file, otherwise None."""
    try:
        if data.startswith(PNG_SIGNATURE):
            intact = _without_damaged_metadata(data)
            return None if intact == data else _read(intact, max_pixels, side)
        if data.startswith(JPEG_START) and _has_all_scans(data):
            known = data.removesuffix(b"\xff")
            # Digests, as there is not enough memory for two large images.
            continued = _digest(_read(known + CONTINUATION + JPEG_END, max_pixels, side))
            image = _read(known + JPEG_END, max_pixels, side)
            return image if _digest(image) == continued else None
    except ImageError:
        pass
    return None


def _without_damaged_metadata(data: bytes) -> bytes:
    """A PNG without those of its chunks that can be left out and whose checksum is wrong, and with an end.

    Transparency cannot be left out: it decides which pixels are seen.
    """
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        chunk = data[at : at + 12 + length]
        optional = kind[:1].islower() and kind != b"tRNS"
        if kind == b"IEND":
            break
        if not optional and len(chunk) < 12 + length:  # pixels are missing, which an end must not stand in for
            return data
        if not optional or chunk[-4:] == zlib.crc32(chunk[4:-4]).to_bytes(4, "big"):
            kept.append(chunk)
        at += 12 + length
    return b"".join(kept) + b"\0\0\0\0IEND\xaeB`\x82"


def _digest(image: Image.Image) -> bytes:
    return hashlib.blake2b(image.tobytes()).digest()


def _has_all_scans(data: bytes) -> bool:
    """Whether a JPEG has scans for each of its components, such as brightness and the two of colour, in full accuracy.

    A progressive JPEG has several for each, of some of the 64 coefficients or some of their bits.
    """
    wanted: set[tuple[int, int]] = set()
    scanned: set[tuple[int, int]] = set()
    progressive = False
    at = len(JPEG_START)
    while marker := NEXT_MARKER.search(data, at):
        kind, body = data[marker.start() + 1], data[marker.end() + 2 : marker.end() + 300]
        if kind == 0xDA and body and len(body) > 3 + 2 * body[0]:
            first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            complete = range(64) if not progressive else range(first, last + 1) if bits % 16 == 0 else range(0)
            scanned |= set(product(body[1 : 1 + 2 * body[0] : 2], complete))
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and len(body) > 5:
            progressive = kind in (0xC2, 0xCA)
            wanted = set(product(body[6 : 6 + 3 * body[5] : 3], range(64)))
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return bool(wanted) and wanted <= scanned
