"""Only small plain PNGs are decoded in the app; a file with anything else is left to the decoding processes."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from app.images import fast_png
from app.images.files import ImageFile
from lamanas_core.images import load
from tests.app.playing import SPEC, pixels, png
from tests.hostile import corpus

HEAD = len(fast_png.SIGNATURE)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(kind: bytes, body: bytes) -> bytes:
    """A valid drawing with this chunk after its header."""
    data = png(0)
    return data[: fast_png.HEADER_ENDS] + chunk(kind, body) + data[fast_png.HEADER_ENDS :]


def png_of_claimed_size(width: int, height: int, *, depth: int = 8, colour: int = 0, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return (
        fast_png.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def decoded(*files: bytes) -> np.ndarray | None:
    return fast_png.decoded([ImageFile(file, f"images[{number}]") for number, file in enumerate(files)], SPEC)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_images_are_decoded_as_in_training(mode: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels(1)).convert("RGB").convert(mode).save(buffer, "PNG")
    files = [buffer.getvalue(), png(2)]
    arrays = decoded(*files)
    assert arrays is not None
    assert np.array_equal(arrays, np.stack([load(file, SPEC, max_pixels=10**6) for file in files]))


@pytest.mark.parametrize("colours", [2, 4, 16, 256])
def test_palettes_of_every_depth_are_decoded(colours: int) -> None:
    """1, 2, 4 and 8 bits a pixel; and the same in grey."""
    image = Image.fromarray(pixels(1)).convert("L").resize((28, 28))
    bits = (colours - 1).bit_length()
    paletted = image.quantize(colours)
    buffer = io.BytesIO()
    paletted.save(buffer, "PNG", bits=bits)
    assert decoded(buffer.getvalue()) is not None
    levels = (np.asarray(image).astype(int) * (colours - 1) // 255).astype(np.uint8)
    rows = b""
    for row in levels:
        text = "".join(format(level, f"0{bits}b") for level in row)
        rows += b"\0" + int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")
    header = struct.pack(">IIBBBBB", 28, 28, bits, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    arrays = decoded(fast_png.SIGNATURE + data)
    assert arrays is not None
    assert np.array_equal(arrays[0], load(fast_png.SIGNATURE + data, SPEC, max_pixels=10**6))


def test_harmless_chunks_are_accepted() -> None:
    assert decoded(with_chunk(b"pHYs", bytes(9)), with_chunk(b"sRGB", b"\0")) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        fast_png.SIGNATURE,
        with_chunk(b"abCd", b""),
        with_chunk(b"abCd", b"x"),
        png(0)[:-1],
        png(0)[: fast_png.HEADER_ENDS],
        png(0) + b"\0",
        with_chunk(b"tEXt", b"a\0b"),
        with_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10_000))),
        with_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10_000))),
        with_chunk(b"eXIf", b"II*\0"),
        with_chunk(b"acTL", bytes(8)),
        with_chunk(b"pHYs", bytes(10)),
        with_chunk(b"IHDR", png(0)[HEAD + 8 : HEAD + 21]),
        png(0)[: fast_png.HEADER_ENDS] + b"\xff\xff\xff\xffIDAT" + png(0)[fast_png.HEADER_ENDS :],
        png_of_claimed_size(10, 10, depth=16),
        png_of_claimed_size(10, 10, depth=3),
        png_of_claimed_size(10, 10, colour=1),
        png_of_claimed_size(10, 10, interlaced=1),
        png_of_claimed_size(0, 10),
        with_chunk(b"IDAT", bytes(fast_png.MAX_BYTES)),
    ],
)
def test_other_pngs_are_not_decoded(data: bytes) -> None:
    assert fast_png.claimed_pixels(data) == 0
    assert decoded(data) is None


def test_other_formats_are_not_decoded() -> None:
    for format in ("JPEG", "GIF", "WEBP"):
        buffer = io.BytesIO()
        Image.fromarray(pixels(0)).save(buffer, format)
        assert decoded(buffer.getvalue()) is None


def test_pixels_are_counted_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_png, "load", lambda *_, **__: pytest.fail("it was decoded"))
    assert decoded(png_of_claimed_size(2**31 - 1, 2**31 - 1)) is None
    assert decoded(png_of_claimed_size(fast_png.MAX_PIXELS + 1, 1)) is None
    half = png_of_claimed_size(fast_png.MAX_PIXELS // 2, 1)
    assert decoded(half, half, png(0)) is None


def test_a_damaged_file_is_left_to_the_decoder() -> None:
    data = bytearray(png(0))
    data[-20] ^= 1
    assert fast_png.claimed_pixels(data)
    assert decoded(bytes(data)) is None


def test_of_the_hostile_files_only_small_plain_pngs_are_decoded() -> None:
    taken = [file.name for file in corpus.images() if decoded(file.data) is not None]
    assert taken
    assert all(name.startswith(("PNG", "white PNG")) for name in taken), taken
    assert not any("bomb in" in name or "texts" in name or "profile" in name for name in taken), taken
