"""Files that are damaged: read if all pixels are there, otherwise refused."""

import io
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lamanas_core.image_files import ImageError, decode
from lamanas_core.images import load
from tests.images.test_image_files import LIMIT, PHOTO, away, photo
from tests.images.test_images import GREY, drawing, encode


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("size", [(96, 96), (61, 47), (1600, 1100)])
def test_a_jpeg_without_its_end_is_read_if_its_pixels_are_whole(size: tuple[int, int], options: Any) -> None:
    whole = encode(photo(*size), "JPEG", **options)
    for cut in (1, 2):
        assert away(load(whole[:-cut], PHOTO, max_pixels=LIMIT), load(whole, PHOTO, max_pixels=LIMIT)) == 0


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_jpeg_whose_pixels_are_missing_is_refused(options: Any) -> None:
    rng = np.random.default_rng(0)
    whole = encode(Image.fromarray(rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)), "JPEG", **options)
    for share in (0.3, 0.6, 0.9, 0.99):
        with pytest.raises(ValueError, match="truncated"):
            load(whole[: int(share * len(whole))], PHOTO, max_pixels=LIMIT)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 3}])
def test_a_jpeg_of_smooth_pixels_that_breaks_off_anywhere_is_refused(options: Any) -> None:
    """Also where a part ends that starts anew, so that whatever follows looks like its end."""
    whole = encode(photo(100, 75), "JPEG", quality=90, **options)
    pixels = np.asarray(Image.open(io.BytesIO(whole))).astype(int)
    for length in range(whole.index(b"\xff\xda") + 20, len(whole) - 2):
        with suppress(ImageError):
            found = np.asarray(decode(whole[:length], max_pixels=LIMIT)).astype(int)
            assert np.abs(found - pixels).max() <= 8, len(whole) - length


def test_a_progressive_jpeg_whose_later_scans_are_missing_is_refused() -> None:
    """All colours are in its first scan, but only the mean of each block of 8 x 8 pixels."""
    whole = encode(photo(96, 96), "JPEG", progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    for end in scans[1:]:
        with pytest.raises(ValueError, match=r"truncated|damaged"):
            load(whole[:end], PHOTO, max_pixels=LIMIT)


def test_a_jpeg_whose_colours_are_missing_is_refused() -> None:
    """After the first of three scans there are brightnesses for all pixels, but no colours."""
    whole = encode(photo(96, 96), "JPEG", progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    later = [at for at in scans if whole[at + 4] == 1]
    # The same file with a single component in its first scan: what is cut off holds the others.
    data = whole[: scans[1]].replace(whole[scans[0] : scans[0] + 5], whole[scans[0] : scans[0] + 4] + b"\x01", 1)
    assert later
    with pytest.raises(ValueError, match=r"truncated|damaged"):
        load(data, PHOTO, max_pixels=LIMIT)


def chunk(kind: bytes, body: bytes, *, checksum: int | None = None) -> bytes:
    found = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", found)


@pytest.mark.parametrize("lost", [1, 4, 8, 12])
def test_a_png_without_its_end_is_read(lost: int) -> None:
    whole = encode(Image.fromarray(drawing()))
    assert away(load(whole[:-lost], GREY, max_pixels=LIMIT), load(whole, GREY, max_pixels=LIMIT)) == 0


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"tIME"])
def test_a_png_with_damaged_metadata_is_read(kind: bytes) -> None:
    whole = encode(Image.fromarray(drawing()))
    bad = chunk(kind, b"Comment\0\0\xffdamaged", checksum=1)
    before, after = whole[:33] + bad + whole[33:], whole[:-12] + bad + whole[-12:]
    broken_off = whole[:-12] + bad[:-9]
    for data in (before, after, broken_off):
        assert away(load(data, GREY, max_pixels=LIMIT), load(whole, GREY, max_pixels=LIMIT)) == 0


def test_a_png_whose_transparency_is_damaged_is_refused() -> None:
    """Which of its pixels are seen is not known, and what is under the others is often black."""
    ink = Image.fromarray((drawing() < 128).astype(np.uint8), "P")
    ink.putpalette([0, 0, 0, 0, 0, 0])
    whole = encode(ink, transparency=0)
    assert load(whole, GREY, max_pixels=LIMIT).max() == 255
    start = whole.index(b"tRNS") + 4
    damaged = whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :]
    with pytest.raises(ValueError, match="damaged"):
        load(damaged, GREY, max_pixels=LIMIT)


def test_a_png_whose_pixels_are_missing_is_refused() -> None:
    rng = np.random.default_rng(0)
    whole = encode(Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)))
    for data in (whole[:-40], whole[:-200], whole[:33] + chunk(b"tEXt", b"a\0b", checksum=1) + whole[33:-200]):
        with pytest.raises(ValueError, match=r"truncated|damaged"):
            load(data, GREY, max_pixels=LIMIT)
