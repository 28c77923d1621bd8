"""The arrays read from image files of every format, mode, size and orientation."""

import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lamanas_core.image_files import ImageError, _webp_canvas, decode
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array, load, preprocess, to_png
from tests.images.heic import heic

GREY = ImageSpec(size=28, channels=1)
COLOUR = ImageSpec(size=28, channels=3, normalise_polarity=False)
LIMIT = 1_000_000


def drawing(size: tuple[int, int] = (105, 105), seed: int = 0) -> UInt8Array:
    """Dark strokes on white, uint8 (height, width): asymmetric, so that a rotation is noticed."""
    width, height = size
    pixels = np.full((height, width), 255, dtype=np.uint8)
    rng = np.random.default_rng(seed)
    pixels[height // 5 : height // 4, width // 5 : width // 2] = 0
    pixels[height // 5 : height // 2, width // 5 : width // 4] = int(rng.integers(0, 60))
    return pixels


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turned(upright: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """The pixels and the metadata that a camera writes of ``upright`` in an EXIF orientation, 2..8."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    return upright.transpose(undo[orientation]), exif


def png_of_claimed_size(width: int, height: int, *, colour: int = 0, data: bytes = b"\0") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def webp_of_claimed_size(width: int, height: int) -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4)
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "HSV", "LAB"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_every_mode_gives_the_shape_of_the_spec(mode: str, spec: ImageSpec) -> None:
    if mode == "I;16":
        image = Image.fromarray(drawing().astype(np.uint16) * 257)
    elif mode == "PA":
        image = Image.fromarray(drawing()).convert("LA").convert("PA")
    else:
        image = Image.fromarray(drawing()).convert("RGB").convert(mode)
    array = preprocess(image, spec)
    assert array.shape == spec.shape
    assert array.dtype == np.uint8


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_a_two_tone_drawing_is_the_same_in_every_mode(mode: str) -> None:
    image = Image.fromarray(np.where(drawing() < 128, 0, 255).astype(np.uint8))
    other = image.convert("RGB").convert(mode) if mode != "LA" else image.convert("LA")
    np.testing.assert_array_equal(preprocess(other, GREY), preprocess(image, GREY))


def test_16_bit_grey_equals_8_bit_grey() -> None:
    grey = drawing()
    wide = encode(Image.fromarray(grey.astype(np.uint16) * 257))
    np.testing.assert_array_equal(
        load(wide, GREY, max_pixels=LIMIT), load(encode(Image.fromarray(grey)), GREY, max_pixels=LIMIT)
    )


def transparent_drawings() -> dict[str, bytes]:
    ink = drawing() < 128
    hidden = np.where(ink, 0, 77).astype(np.uint8)
    rgba = np.dstack([hidden, hidden, hidden, np.where(ink, 255, 0).astype(np.uint8)])
    palette = Image.fromarray(np.where(ink, 0, 1).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 77, 77, 77])
    wide = Image.fromarray(np.where(ink, 0, 77 * 257).astype(np.uint16))
    return {
        "RGBA": encode(Image.fromarray(rgba)),
        "LA": encode(Image.fromarray(rgba).convert("LA")),
        "P": encode(palette, transparency=1),
        "P with several alphas": encode(palette, transparency=bytes([255, 0])),
        "L": encode(Image.fromarray(hidden), transparency=77),
        "RGB": encode(Image.fromarray(hidden).convert("RGB"), transparency=(77, 77, 77)),
        "GIF": encode(palette, "GIF", transparency=1),
        "WebP": encode(Image.fromarray(rgba), "WEBP", lossless=True),
        "I;16": encode(wide, transparency=77 * 257),
    }


@pytest.mark.parametrize("name", list(transparent_drawings()))
def test_transparency_is_composed_onto_white(name: str) -> None:
    plain = Image.fromarray(np.where(drawing() < 128, 0, 255).astype(np.uint8))
    expected = preprocess(plain, GREY)
    np.testing.assert_array_equal(load(transparent_drawings()[name], GREY, max_pixels=LIMIT), expected)


@given(
    width=st.integers(1, 60),
    height=st.integers(1, 60),
    data=st.data(),
    size=st.sampled_from([1, 5, 28, 32]),
)
@settings(max_examples=200, deadline=None)
def test_a_drawing_and_its_negative_give_identical_arrays(
    width: int, height: int, data: st.DataObject, size: int
) -> None:
    tones = np.array(data.draw(st.sampled_from([[0, 255], [0, 1, 254, 255], list(range(256))])), np.uint8)
    drawn = np.frombuffer(data.draw(st.binary(min_size=width * height, max_size=width * height)), np.uint8)
    pixels = tones[drawn.astype(np.intp) % len(tones)].reshape(height, width)
    spec = ImageSpec(size=size, channels=1)
    one, other = (preprocess(Image.fromarray(p), spec) for p in (pixels, 255 - pixels))
    np.testing.assert_array_equal(one, other)


def test_the_background_becomes_0_and_the_strokes_255() -> None:
    for background, ink in [(255, 0), (0, 255), (200, 0), (90, 255)]:
        pixels = np.full((56, 56), background, dtype=np.uint8)
        pixels[20:40, 20:40] = ink
        array = preprocess(Image.fromarray(pixels), GREY)[0]
        assert array[0, 0] == 0
        assert array[14, 14] == 255


def test_without_polarity_correction_tones_are_unchanged() -> None:
    spec = ImageSpec(size=28, channels=1, normalise_polarity=False)
    array = preprocess(Image.fromarray(np.full((28, 28), 200, dtype=np.uint8)), spec)
    assert (array == 200).all()


def test_a_blank_image_is_all_background() -> None:
    for tone in (0, 128, 255):
        assert not preprocess(Image.new("L", (40, 40), tone), GREY).any()


def test_colour_keeps_its_channels_in_order() -> None:
    array = preprocess(Image.new("RGB", (40, 40), (10, 20, 30)), COLOUR)
    assert [int(channel[5, 5]) for channel in array] == [10, 20, 30]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.fromarray(drawing((60, 60)))
    pixels, exif = turned(upright, orientation)
    for form in ("PNG", "JPEG", "WEBP"):
        options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
        got = load(encode(pixels, form, exif=exif, **options), GREY, max_pixels=LIMIT).astype(int)
        expected = preprocess(upright, GREY).astype(int)
        assert np.abs(got - expected).max() <= (40 if form == "JPEG" else 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_an_image_with_damaged_exif_data_is_read() -> None:
    whole = encode(Image.fromarray(drawing()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert load(whole, GREY, max_pixels=LIMIT).any()


def test_a_wide_image_is_padded_to_a_square_with_its_background() -> None:
    pixels = np.zeros((20, 56), dtype=np.uint8)
    pixels[4:16, 4:52] = 255
    array = preprocess(Image.fromarray(pixels), GREY)[0]
    assert not array[:9].any()
    assert not array[19:].any()
    assert array[14, 14] == 255


def test_a_very_long_image_is_not_padded_to_a_square() -> None:
    assert preprocess(Image.new("L", (400_000, 1), 255), GREY).shape == GREY.shape


def test_the_first_frame_of_a_gif_is_read() -> None:
    first, second = Image.fromarray(drawing()), Image.fromarray(drawing().T.copy())
    animation = encode(first, "GIF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(
        load(animation, GREY, max_pixels=LIMIT), load(encode(first, "GIF"), GREY, max_pixels=LIMIT)
    )


@pytest.mark.parametrize(
    "bomb",
    [png_of_claimed_size(1001, 1000), png_of_claimed_size(2**31 - 1, 2**31 - 1), webp_of_claimed_size(16384, 16384)],
)
def test_too_many_pixels_are_refused_by_the_header(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    with pytest.raises(ImageError, match="pixels"):
        decode(bomb, max_pixels=LIMIT)


def test_an_image_at_the_limit_is_accepted() -> None:
    data = encode(Image.new("L", (100, 100)))
    assert decode(data, max_pixels=10_000).size == (100, 100)
    with pytest.raises(ImageError, match=r"100 x 100 is 0\.01 megapixels, more than the 0\.009999 that are"):
        decode(data, max_pixels=9_999)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_truncated_file_is_refused(form: str) -> None:
    rng = np.random.default_rng(0)
    data = encode(Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)), form)
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        decode(data[: len(data) // 2], max_pixels=LIMIT)


@pytest.mark.parametrize("form", ["PPM", "ICO", "PDF", "TGA", "JPEG2000"])
def test_other_formats_are_refused(form: str) -> None:
    with pytest.raises(ImageError, match="not a PNG, JPEG, WebP, GIF, HEIC, AVIF, BMP or TIFF"):
        decode(encode(Image.new("L", (16, 16)), form), max_pixels=LIMIT)


@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_a_palette_png_without_its_palette_is_refused(spec: ImageSpec) -> None:
    with pytest.raises(ImageError, match="damaged"):
        load(png_of_claimed_size(4, 4, colour=3, data=bytes(4 * 5)), spec, max_pixels=LIMIT)


def test_a_lack_of_memory_is_not_reported_as_an_invalid_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("lamanas_core.images._fit", exhausted)
    with pytest.raises(MemoryError):
        load(encode(Image.fromarray(drawing())), GREY, max_pixels=LIMIT)


def test_an_empty_file_is_reported_as_empty() -> None:
    with pytest.raises(ImageError, match="empty"):
        decode(b"", max_pixels=LIMIT)


MAGIC = st.sampled_from(
    [
        *(b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\x40\0\0\0WEBPVP8X", b"BM"),
        *(b"II*\0\x08\0\0\0", b"MM\0*", b"\0\0\0\x14ftypheic\0\0\0\0heic", b"\0\0\0\x14ftypavif\0\0\0\0avif"),
    ]
)


def shape_or_refusal(data: bytes) -> tuple[int, ...] | None:
    try:
        return load(data, GREY, max_pixels=10_000).shape
    except ImageError:
        return None


@given(MAGIC, st.binary(max_size=400))
@settings(max_examples=400, deadline=None)
def test_random_bytes_raise_only_image_error(magic: bytes, rest: bytes) -> None:
    assert shape_or_refusal(magic + rest) in (None, GREY.shape)


FUZZED = [("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("RGB", "WEBP"), ("P", "GIF"), ("RGB", "AVIF")]
FUZZED += [("P", "BMP"), ("RGB", "TIFF"), ("I;16", "TIFF")]
WHOLE = [encode(Image.fromarray(drawing((40, 30))).convert(mode), form) for mode, form in FUZZED]
WHOLE.append(heic(Image.fromarray(drawing((40, 30)))))


@given(st.sampled_from(WHOLE), st.data())
@settings(max_examples=400, deadline=None)
def test_changed_and_truncated_files_raise_only_image_error(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(whole)))
    assert shape_or_refusal(bytes(damaged)) in (None, GREY.shape)
    assert shape_or_refusal(bytes(damaged[:cut])) in (None, GREY.shape)


@settings(deadline=None)
@given(st.integers(1, 2**24), st.integers(1, 2**24), st.binary(max_size=20))
def test_the_canvas_of_an_extended_webp_is_read_before_pillow_opens_it(width: int, height: int, rest: bytes) -> None:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    data = b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + sides
    assert _webp_canvas(data + rest) == (width, height)
    for other in (data[:29], b"RIFX" + data[4:], data[:15] + b"L" + data[16:], data[:8] + b"XEBP" + data[12:]):
        assert _webp_canvas(other) == (0, 0)


@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_shrinking_averages_all_pixels_and_enlarging_interpolates(spec: ImageSpec) -> None:
    board = (255 * (np.indices((112, 112)).sum(0) % 2)).astype(np.uint8)
    board[40:72, 40:72] = 255
    inside = preprocess(Image.fromarray(board), replace(spec, normalise_polarity=False))[:, 1:9, 1:27]
    assert 120 <= inside.min() <= inside.max() <= 135
    edge = np.full((7, 7), 255, np.uint8)
    edge[:, :3] = 0
    levels = np.unique(preprocess(Image.fromarray(edge), replace(spec, normalise_polarity=False)))
    assert len(levels) > 3


def test_a_png_for_display_shows_drawings_dark_on_light_and_photos_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    photo = to_png(pixels, COLOUR)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(photo))), pixels.transpose(1, 2, 0))
    shown = to_png(pixels[:1], GREY)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown))), 255 - pixels[0])
