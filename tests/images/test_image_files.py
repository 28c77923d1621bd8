"""What phones, cameras and scanners write: formats, sizes, and transparent or dim images."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array, load, preprocess
from tests.images.heic import heic
from tests.images.test_images import GREY, drawing, encode, turned

PHOTO = ImageSpec(size=56, channels=3, normalise_polarity=False)
LIMIT = 4_000_000
CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    return heic(image, **options) if form == "HEIF" else encode(image, form, **options)


def photo(width: int, height: int) -> Image.Image:
    """Smooth and asymmetric, with a colour for each corner."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return Image.fromarray(np.dstack([230 * x + 10, 230 * y + 10, 200 * (1 - x) * y + 20]).astype(np.uint8))


def away(one: UInt8Array, other: UInt8Array) -> int:
    return int(np.abs(one.astype(int) - other).max())


# ---------------------------------------------------------------------- formats

LOSSY = {"JPEG": 40, "HEIF": 40, "AVIF": 40}


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "HEIF", "AVIF", "BMP", "TIFF"])
def test_the_same_drawing_is_read_from_every_format(form: str) -> None:
    image = Image.fromarray(drawing()).convert("RGB")
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    got = load(saved(image, form, **options), GREY, max_pixels=LIMIT)
    assert away(got, preprocess(image, GREY)) <= LOSSY.get(form, 0)


@pytest.mark.parametrize("codec", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_tiffs_of_scanners_are_read(codec: str, mode: str) -> None:
    image = Image.fromarray(drawing()).convert(mode)
    got = load(encode(image, "TIFF", compression=codec), GREY, max_pixels=LIMIT)
    assert away(got, preprocess(image, GREY)) <= (40 if codec == "jpeg" else 0)


def test_a_fax_is_read() -> None:
    image = Image.fromarray(drawing()).convert("1")
    for codec in ("group3", "group4"):
        data = encode(image, "TIFF", compression=codec)
        assert away(load(data, GREY, max_pixels=LIMIT), preprocess(image, GREY)) == 0


def test_the_first_page_of_a_tiff_is_read() -> None:
    first, second = Image.fromarray(drawing()), Image.fromarray(drawing().T.copy())
    pages = encode(first, "TIFF", save_all=True, append_images=[second])
    assert away(load(pages, GREY, max_pixels=LIMIT), preprocess(first, GREY)) == 0


def test_a_rare_tiff_says_how_to_save_it() -> None:
    with pytest.raises(ValueError, match="TIFF compressed with zstd: save it with LZW"):
        load(encode(Image.fromarray(drawing()), "TIFF", compression="zstd"), GREY, max_pixels=LIMIT)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_16_bit_tiff_equals_8_bit_grey(order: str) -> None:
    deep = tiff_of_16_bits(drawing().astype(np.uint16) * 257, order)
    assert away(load(deep, GREY, max_pixels=LIMIT), preprocess(Image.fromarray(drawing()), GREY)) == 0


def tiff_of_16_bits(values: np.ndarray, order: str, *, deflated: bool = False) -> bytes:
    """Grey or colours, in either byte order, and compressed: Pillow writes one order, and no colours of 16 bits."""
    height, width, *channels = values.shape
    (bands,) = channels or (1,)
    samples = values.astype(f"{order}u2").tobytes()
    body = zlib.compress(samples) if deflated else samples
    # A list of numbers, one for each band, lies in front of the pixels unless there is only one.
    depths = struct.pack(f"{order}{bands}H", *[16] * bands)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, bands, 8) if bands > 1 else (258, 4, 1, 16)]
    tags += [(259, 4, 1, 8 if deflated else 1), (262, 4, 1, 2 if bands > 1 else 1), (273, 4, 1, 8 + len(depths))]
    tags += [(277, 4, 1, bands), (278, 4, 1, height), (279, 4, 1, len(body))]
    if bands == 4:
        tags.append((338, 4, 1, 2))
    entries = b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return mark + struct.pack(f"{order}I", 8 + len(depths) + len(body)) + depths + body + directory


def png_of_16_bits(values: np.ndarray) -> bytes:
    """Colours, with transparency if there is a fourth: Pillow writes none of 16 bits."""
    height, width, bands = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if bands == 3 else 6, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    whole = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


@pytest.mark.parametrize("form", ["JPEG", "TIFF", "AVIF", "HEIF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [3, 5, 6])
def test_an_orientation_counts_in_every_format_that_has_one(form: str, orientation: int) -> None:
    upright = photo(90, 60)
    pixels, exif = turned(upright, orientation)
    got = load(saved(pixels, form, exif=exif.tobytes()), PHOTO, max_pixels=LIMIT)
    assert away(got, preprocess(upright, PHOTO)) <= 24


def test_a_photo_of_two_pictures_is_read_as_its_first() -> None:
    """Phones add a second picture, such as one of depth, to a JPEG."""
    first = photo(90, 60)
    data = encode(first, "MPO", save_all=True, append_images=[Image.new("RGB", (90, 60))])
    assert away(load(data, PHOTO, max_pixels=LIMIT), preprocess(first, PHOTO)) <= 24


def test_only_heic_is_decoded_by_the_library_for_it() -> None:
    """Another build of the library may bring decoders that no one has looked at."""
    import pi_heif

    assert set(pi_heif.libheif_info()["encoders"]) <= {"mask"}
    assert list(pi_heif.libheif_info()["decoders"]) == ["libde265"]


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "HEIF", "AVIF", "BMP", "TIFF"])
def test_a_large_image_is_refused_by_its_header(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(photo(200, 150), form)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("pixels were decoded"))
    words = "200 x 150 is 0.03 megapixels, more than the .* that are accepted.*: make the image smaller"
    with pytest.raises(ValueError, match=words):
        load(data, PHOTO, max_pixels=29_999)


def test_a_large_jpeg_is_read_at_a_fraction_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr("lamanas_core.images.preprocess", lambda image, spec: sizes.append(image.size))
    data = encode(photo(4000, 3000), "JPEG")
    for size in (28, 224, 300):
        load(data, ImageSpec(size, 3, False), max_pixels=50_000_000)
    assert sizes == [(1000, 750), (1000, 750), (1000, 750)]
    sizes.clear()
    load(data, ImageSpec(1024, 3, False), max_pixels=50_000_000)
    load(encode(photo(1500, 1023), "JPEG"), GREY, max_pixels=50_000_000)
    assert sizes == [(4000, 3000), (1500, 1023)]


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_reduced_jpeg_is_read_as_the_whole_one(mode: str, progressive: bool) -> None:
    whole = Image.fromarray(drawing((1900, 1500))).convert(mode)
    data = encode(whole, "JPEG", progressive=progressive, quality=90)
    for spec in (GREY, PHOTO):
        assert away(load(data, spec, max_pixels=LIMIT), preprocess(Image.open(io.BytesIO(data)), spec)) <= 4


def test_a_reduced_jpeg_is_turned_upright() -> None:
    upright = photo(1300, 2600)
    pixels, exif = turned(upright, 6)
    data = encode(pixels, "JPEG", exif=exif)
    assert away(load(data, PHOTO, max_pixels=LIMIT), preprocess(upright, PHOTO)) <= 4


def test_memory_that_runs_out_while_decoding_is_not_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    of_libheif = RuntimeError("Memory allocation error: Security limit exceeded")
    of_libavif = RuntimeError("Pixel allocation failed: Out of memory")
    for error in (MemoryError(), of_libheif, of_libavif):

        def exhausted(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", exhausted)
        with pytest.raises(MemoryError):
            load(encode(photo(20, 20)), GREY, max_pixels=LIMIT)


# ---------------------------------------------------------------------- light marks, dim images


@pytest.mark.parametrize("grey", [255, 226])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16"])
def test_light_marks_on_transparent_ground_are_seen(grey: int, mode: str) -> None:
    ink = drawing() < 128
    alpha = np.where(ink, 255, 0).astype(np.uint8)
    if mode == "I;16":
        data = encode(Image.fromarray(np.where(ink, grey * 257, 9).astype(np.uint16)), transparency=9)
    else:
        rgba = Image.fromarray(np.dstack([*[np.full_like(alpha, grey)] * 3, alpha]))
        data = encode(rgba.convert(mode) if mode != "P" else rgba.quantize(method=2))
    drawn = preprocess(Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)), GREY)
    assert away(load(data, GREY, max_pixels=LIMIT), drawn) <= 255 - grey


def test_a_dark_mark_on_transparent_ground_stays_on_white() -> None:
    """A scan whose corners were cut out: paper is light, and nothing of it is taken for ink."""
    pixels = drawing()
    alpha = np.full_like(pixels, 255)
    alpha[:4, :4] = 0
    data = encode(Image.fromarray(np.dstack([pixels, pixels, pixels, alpha])))
    assert away(load(data, GREY, max_pixels=LIMIT), preprocess(Image.fromarray(pixels), GREY)) == 0


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_cameras_that_use_the_low_bits_of_16_are_read_in_full(bits: int, form: str) -> None:
    deep = (255 - drawing().astype(np.int64)) * (2**bits - 1) // 255
    got = load(encode(Image.fromarray(deep.astype(np.uint16)), form), GREY, max_pixels=LIMIT)
    assert away(got, preprocess(Image.fromarray(255 - drawing()), GREY)) <= 1


COLOURS_OF_16_BITS: dict[str, Callable[[np.ndarray], bytes]] = {
    "PNG": png_of_16_bits,
    "TIFF of Intel": partial(tiff_of_16_bits, order="<"),
    "TIFF of Motorola": partial(tiff_of_16_bits, order=">"),
    "TIFF of Intel, compressed": partial(tiff_of_16_bits, order="<", deflated=True),
    "TIFF of Motorola, compressed": partial(tiff_of_16_bits, order=">", deflated=True),
}


@pytest.mark.parametrize("form", COLOURS_OF_16_BITS)
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_colours_in_the_low_bits_of_16_are_read_in_full(bits: int, form: str) -> None:
    plain = photo(90, 70)  # more rows than are converted at a time
    deep = np.asarray(plain).astype(np.int64) * (2**bits - 1) // 255
    for bands in (deep, np.dstack([deep, np.full(deep.shape[:2], 65535)])):
        got = load(COLOURS_OF_16_BITS[form](bands), PHOTO, max_pixels=LIMIT)
        assert away(got, preprocess(plain, PHOTO)) <= 1


def test_transparency_remains_where_colours_are_stretched() -> None:
    deep = np.full((40, 40, 4), 65535)
    deep[..., :3] = 300
    deep[0, 39, :3] = 1023
    deep[:, :20, 3] = 0
    spec = ImageSpec(40, 3, normalise_polarity=False)
    got = load(png_of_16_bits(deep), spec, max_pixels=LIMIT)
    assert (got[:, :, :19] == 255).all()
    assert (got[:, 1:, 21:] == (300 * 255 + 511) // 1023).all()


def test_dark_colours_of_16_bits_remain_dark() -> None:
    spec = ImageSpec(28, 3, normalise_polarity=False)
    dim = np.full((28, 28, 3), 8000)
    assert (load(png_of_16_bits(dim), spec, max_pixels=LIMIT) == 8000 >> 8).all()


def test_a_dark_image_of_16_bits_remains_dark() -> None:
    spec = ImageSpec(28, 1, normalise_polarity=False)
    dim = Image.fromarray(np.full((28, 28), 8000, np.uint16))
    assert (load(encode(dim), spec, max_pixels=LIMIT) == 8000 * 255 // 65535).all()


def test_a_transparent_grey_of_16_bits_takes_little_memory() -> None:
    deep = Image.fromarray(np.arange(2_000_000, dtype=np.uint32).astype(np.uint16).reshape(1000, 2000))
    deep.info["transparency"] = 9
    tracemalloc.start()
    try:
        preprocess(deep, PHOTO)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 8 * 2_000_000


@pytest.mark.parametrize("most", [1.0, 255.0, 1e9])
def test_a_tiff_of_floats_is_read_in_full(most: float) -> None:
    values = drawing().astype(np.float32) / 255 * most
    got = load(encode(Image.fromarray(values), "TIFF"), GREY, max_pixels=LIMIT)
    assert away(got, preprocess(Image.fromarray(drawing()), GREY)) <= 1


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside this checkout")
@pytest.mark.parametrize("name", ["darkfield-10bit-in-16bit/q.png", "jpeg-without-eoi/q.jpg"])
def test_images_of_real_trouble_are_read(name: str) -> None:
    assert load((CASES / name).read_bytes(), GREY, max_pixels=LIMIT).max() > 100


# ---------------------------------------------------------------------- photos


def test_a_photo_is_cropped_and_not_squeezed() -> None:
    middle = photo(100, 100)
    wide = Image.new("RGB", (180, 100), "red")
    wide.paste(middle, (40, 0))
    inside = np.s_[:, 4:-4, 4:-4]  # the outermost pixels are mixed with what is beyond them
    assert away(preprocess(wide, PHOTO)[inside], preprocess(middle, PHOTO)[inside]) <= 1
    tall = Image.new("RGB", (100, 180), "red")
    tall.paste(middle, (0, 40))
    assert away(preprocess(tall, PHOTO)[inside], preprocess(middle, PHOTO)[inside]) <= 1


def test_a_colour_profile_is_converted_to_srgb() -> None:
    """The profile's red and green are swapped: it can only have been applied if they are in the pixels, too."""
    swapped = Image.new("RGB", (60, 60), (200, 40, 90))
    data = encode(swapped, icc_profile=swapped_profile())
    assert away(load(data, PHOTO, max_pixels=LIMIT), preprocess(Image.new("RGB", (9, 9), (40, 200, 90)), PHOTO)) <= 3
    drawn = ImageSpec(28, 3)
    plain = load(encode(swapped), drawn, max_pixels=LIMIT)
    assert away(load(data, drawn, max_pixels=LIMIT), plain) == 0


def swapped_profile() -> bytes:
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    places = {}
    for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12):
        places[bytes(profile[at : at + 4])] = at
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("profile", [b"\xff" * 500, b"", b"acsp"])
def test_a_damaged_colour_profile_is_ignored(profile: bytes) -> None:
    image = photo(60, 60)
    assert away(load(encode(image, icc_profile=profile), PHOTO, max_pixels=LIMIT), preprocess(image, PHOTO)) == 0


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
DEEP = ["I", "F", "I;16", "I;16B", "I;16L"]


@given(
    st.sampled_from(MODES + DEEP),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.sampled_from([1, 7, 28, 64]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=400, deadline=None)
def test_any_mode_and_size_gives_the_shape_of_the_spec(
    mode: str, width: int, height: int, channels: int, drawings: bool, size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    spec = ImageSpec(size, channels, drawings)
    array = preprocess(of_mode(mode, rng.integers(0, 256, (height, width, 4), dtype=np.uint8)), spec)
    assert array.shape == spec.shape
    assert array.dtype == np.uint8


def of_mode(mode: str, pixels: UInt8Array) -> Image.Image:
    rgba = Image.fromarray(pixels)
    if mode in DEEP:
        deep = pixels[:, :, 0].astype(np.int64) * 257
        kinds = {"I": "<i4", "F": "<f4", "I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2"}
        return Image.frombytes(mode, rgba.size, deep.astype(kinds[mode]).tobytes())
    through = {"PA": ["LA"], "RGBa": ["RGBA"]}.get(mode, ["RGB"] if mode not in ("LA", "RGBA") else [])
    for between in [*through, mode]:
        rgba = rgba.convert(between)
    return rgba


@given(st.integers(30, 120), st.integers(30, 120), st.sampled_from([2, 4, 5, 7]), st.sampled_from(["PNG", "TIFF"]))
@settings(max_examples=60, deadline=None)
def test_a_mirrored_orientation_is_undone(width: int, height: int, orientation: int, form: str) -> None:
    upright = photo(width, height)
    pixels, exif = turned(upright, orientation)
    for spec in (PHOTO, GREY):
        data = encode(pixels, form, exif=exif)
        assert away(load(data, spec, max_pixels=LIMIT), preprocess(upright, spec)) == 0
