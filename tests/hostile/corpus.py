"""Damaged and hostile files, made by code: the same ones every time."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageCms

from tests.app.playing import pixels, png
from tests.app.test_pool import slow_jpeg
from tests.images.heic import heic

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "HEIF", "AVIF", "BMP", "TIFF")


@dataclass(frozen=True)
class Hostile:
    """``fine``: taken is right, too, for damage may have missed what is read, or the file is only odd."""

    name: str
    data: bytes
    fine: bool = False


def images() -> Iterator[Hostile]:
    yield from _truncated()
    yield from _flipped()
    yield from _claiming()
    yield from _bombs()
    yield from _odd_but_valid()
    yield from _no_images()


def archives() -> Iterator[Hostile]:
    yield from _named_badly()
    yield from _damaged_archives()
    yield from _archive_bombs()


# ---------------------------------------------------------------------- images


@cache
def _valid(format: str) -> bytes:
    if format == "HEIF":
        return heic(Image.fromarray(pixels(1)).convert("RGB"))
    buffer = io.BytesIO()
    Image.fromarray(pixels(1)).convert("RGB").save(buffer, format)
    return buffer.getvalue()


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _truncated() -> Iterator[Hostile]:
    for format in FORMATS:
        whole = _valid(format)
        for number in range(50):
            length = number * (len(whole) - 1) // 50
            yield Hostile(f"{format} cut to {length}", whole[:length], fine=True)


def _flipped() -> Iterator[Hostile]:
    rng = np.random.default_rng(0)
    for format in FORMATS:
        whole = _valid(format)
        for number in range(60):
            data = bytearray(whole)
            for _ in range(1 + number % 4):
                data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            yield Hostile(f"{format} with flips {number}", bytes(data), fine=True)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, *, depth: int = 8, colour: int = 0, data: bytes = b"", more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + more + _chunk(b"IDAT", zlib.compress(data, 9)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _claiming() -> Iterator[Hostile]:
    """Headers that promise more than anybody has."""
    for width, height in ((2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (1, 2**31 - 1), (65_535, 65_535), (7072, 7072)):
        yield Hostile(f"PNG of {width} x {height}", _png(width, height))
    yield Hostile("PNG of 0 x 0", _png(0, 0))
    jpeg = bytearray(_valid("JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    yield Hostile("JPEG of 65535 x 65535", bytes(jpeg))
    gif = bytearray(_valid("GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    yield Hostile("GIF of 65535 x 65535", bytes(gif))
    for form, before in (("HEIF", b"ispe"), ("AVIF", b"ispe")):  # width and height follow version and flags
        box = bytearray(_valid(form))
        at = box.index(before) + 8
        box[at : at + 8] = struct.pack(">II", 60_000, 60_000)
        yield Hostile(f"{form} of 60000 x 60000", bytes(box))
    bmp = bytearray(_valid("BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    yield Hostile("BMP of 60000 x 60000", bytes(bmp))
    tiff = bytearray(_saved(Image.new("L", (7, 5)), "TIFF"))
    for tag in (256, 257):
        at = tiff.index(struct.pack("<HH", tag, 4)) + 8
        tiff[at : at + 4] = struct.pack("<I", 60_000)
    yield Hostile("TIFF of 60000 x 60000", bytes(tiff))
    for size in (1, 2**24):
        canvas = b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + 2 * (size - 1).to_bytes(3, "little") + bytes(40)
        yield Hostile(f"WebP canvas of {size} and nothing on it", canvas)


def _bombs() -> Iterator[Hostile]:
    yield Hostile("PNG that inflates past its lines", _png(8, 8, data=bytes(16 * 2**20)), fine=True)
    for kind, body in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")):
        bomb = _chunk(kind, body + zlib.compress(bytes(16 * 2**20)))
        name = f"PNG with a bomb in {kind.decode()}"
        yield Hostile(name, _png(8, 8, data=bytes(72), more=bomb), fine=True)
    many = b"".join(_chunk(b"tEXt", b"a\0" + bytes(1000)) for _ in range(3000))
    yield Hostile("PNG of 3,000 texts", _png(8, 8, data=bytes(72), more=many), fine=True)
    yield Hostile("JPEG that draws itself 3,000 times", slow_jpeg())
    for side in (3999, 7071):
        yield Hostile(f"white PNG of {side} squared", _png(side, side, data=bytes((side + 1) * side)), fine=True)


def _odd_but_valid() -> Iterator[Hostile]:
    grey = Image.fromarray(pixels(1))
    frames = [Image.fromarray(pixels(kind)) for kind in range(4)] * 50
    for format in ("GIF", "WEBP", "PNG"):
        yield Hostile(f"animated {format}", _saved(grey, format, save_all=True, append_images=frames), fine=True)
    yield Hostile("CMYK JPEG", _saved(grey.convert("RGB").convert("CMYK"), "JPEG"), fine=True)
    deep = Image.fromarray(pixels(1).astype(np.uint16) * 257)
    yield Hostile("16-bit PNG", _saved(deep, "PNG"), fine=True)
    for mode in ("1", "P", "LA", "RGBA"):
        yield Hostile(f"PNG of mode {mode}", _saved(grey.convert("RGB").convert(mode), "PNG"), fine=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for format in ("PNG", "JPEG", "WEBP"):
        rgb = grey.convert("RGB")
        yield Hostile(f"{format} with a colour profile", _saved(rgb, format, icc_profile=profile), fine=True)
        yield Hostile(f"{format} with a broken profile", _saved(rgb, format, icc_profile=b"\xff" * 9999), fine=True)
        yield Hostile(
            f"{format} with broken EXIF", _saved(rgb, format, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), fine=True
        )
    for turn in range(10):
        exif = Image.Exif()
        exif[274] = turn
        yield Hostile(f"JPEG turned {turn}", _saved(grey, "JPEG", exif=exif), fine=True)
    for width, height in ((1, 1), (1, 10_000), (10_000, 1)):
        yield Hostile(f"PNG of {width} x {height}", _saved(Image.new("L", (width, height)), "PNG"), fine=True)
    for tail in (b"\0", _valid("GIF"), _zip({"a/1.png": png(0)}), b"<script>alert(1)</script>"):
        yield Hostile(f"PNG and {tail[:4]!r} after it", png(0) + tail, fine=True)


def _no_images() -> Iterator[Hostile]:
    yield Hostile("nothing", b"")
    yield Hostile("PNG of a palette that is missing", _png(4, 4, colour=3, data=bytes(4 * 5)))
    yield Hostile("PNG that ends with its header", _png(4, 4)[:33])
    for number, data in enumerate(
        (
            b"\0",
            b"\xff" * 1000,
            bytes(10_000),
            b"BM" + bytes(100),
            b"II*\0\x08\0\0\0\0\0",
            b"%PDF-1.7\n%%EOF",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage",
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
            b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
            b"P5 99999 99999 255\n",
            b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x02os\x8c\x06system\x93.",
            b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
            b"PK\x03\x04" + bytes(100),
            b"\0\0\0\x1cftypavif" + bytes(100),
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff\xd9",
            b"GIF89a",
            b"RIFF\xff\xff\xff\xffWEBP",
        )
    ):
        yield Hostile(f"no image {number}", data)


# ---------------------------------------------------------------------- archives

GOOD = {"a/1.png": png(0), "b/1.png": png(1)}


def _zip(entries: dict[str, bytes]) -> bytes:
    return _packed([(zipfile.ZipInfo(name), data) for name, data in entries.items()])


def _packed(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for info, data in entries:
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _of_kind(kind: int) -> bytes:
    info = zipfile.ZipInfo("b/2.png")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    good = [(zipfile.ZipInfo(name), data) for name, data in GOOD.items()]
    return _packed([*good, (info, b"/etc/passwd")])


def _named_badly() -> Iterator[Hostile]:
    for name in (
        *("../x.png", "a/../../x.png", "a/..", "./x.png", "a/./x.png", "..", "a//x.png", "/etc/passwd", "//x/y.png"),
        *(
            "C:/x.png",
            "C:x/y.png",
            "\\\\host\\x",
            "..\\x.png",
            "\r\n/x.png",
            "a/\x1b[2J.png",
            "a/\u202egnp.x",
            "\x7f/x.png",
        ),
    ):
        yield Hostile(f"zip with {name!r}", _zip(GOOD | {name: png(0)}))
    for name in ("a\\x.png", "x.png", "a/b/c.png", "a/b/c/d/e/f.png"):
        yield Hostile(f"zip with {name!r}", _zip(GOOD | {name: png(0)}), fine=True)
    kinds = (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)
    for kind in kinds:
        yield Hostile(f"zip with an entry of kind {kind:o}", _of_kind(kind))


def _damaged_archives() -> Iterator[Hostile]:
    whole, rng = _zip(GOOD), np.random.default_rng(0)
    for number in range(30):
        yield Hostile(f"zip cut in {number}", whole[: number * (len(whole) - 1) // 30])
    for number in range(60):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        yield Hostile(f"zip with a flip {number}", bytes(data), fine=True)
    yield Hostile("zip of one name twice", whole[:0] + _zip(GOOD) + whole, fine=True)
    yield Hostile("PNG that is a zip", png(0) + whole, fine=True)


def _archive_bombs() -> Iterator[Hostile]:
    yield Hostile("zip of a million entries", _directory(300_000, 1_000_000))
    yield Hostile("zip that claims 2**32 entries", _directory(10, 2**16 - 1))
    yield Hostile("zip bomb", _zip({"a/1.png": bytes(40 * 2**20), "b/1.png": png(1)}))
    yield Hostile("zip bomb in pieces", _zip({f"{n % 2}/{n}.png": bytes(2**20) for n in range(40)}))
    nested = _zip({"a/1.png": bytes(10 * 2**20)})
    for _ in range(5):
        nested = _zip({"a/1.png": nested, "b/1.png": nested})
    yield Hostile("zip of zips of zips", nested)
    yield Hostile("zip of entries over each other", _overlapping())


def _directory(entries: int, claimed: int) -> bytes:
    """A directory of many names for the same nothing; written by hand, as zipfile takes long over it."""
    name = b"a/1.png"
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0) + name
    claimed &= 0xFFFF
    return entry * entries + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, claimed, claimed, len(entry) * entries, 0, 0)


def _overlapping() -> bytes:
    """1,000 names for one megabyte of zeros that is stored once."""
    kernel = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(2**20)
    packed = kernel.compress(zeros) + kernel.flush()
    crc = zlib.crc32(zeros)
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 33, crc, len(packed), len(zeros), 7, 0) + b"a/0.png"
    entries = b""
    for number in range(1000):
        name = f"{'ab'[number % 2]}/{number}.png".encode()
        fields = (20, 20, 0, 8, 0, 33, crc, len(packed), len(zeros), len(name), 0, 0, 0, 0, 0, 0)
        entries += struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *fields) + name
    at = len(local) + len(packed)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1000, 1000, len(entries), at, 0)
    return local + packed + entries + end
