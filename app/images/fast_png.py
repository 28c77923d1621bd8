"""Decodes small plain PNGs, such as drawings, in the app: sending one to a decoding process takes longer than decoding.

The files are checked before Pillow reads them: only a few kinds of chunks are allowed, so that nothing is inflated but
the pixels, and these are few. All other files, including damaged ones, are left to ``app.images.pool``.
"""

from collections.abc import Sequence

import numpy as np

from app.images.files import ImageFile
from lamanas_core.image_files import ImageError
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array, load

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_BYTES = 8 * 1024
# Of all images of a request together. The most expensive kind, RGBA, takes 1 ms as a square and 4 ms as a single line.
MAX_PIXELS = 2**15
# The chunks that are allowed, with their maximum lengths; none contains text, a profile or another frame.
CHUNKS = {
    b"PLTE": 3 * 256,
    b"tRNS": 256,
    b"IDAT": MAX_BYTES,
    b"IEND": 0,
    b"gAMA": 4,
    b"sRGB": 1,
    b"pHYs": 9,
}
# Allowed bits per sample by colour type; 16 bits are left to the decoding processes.
DEPTHS = {0: (1, 2, 4, 8), 2: (8,), 3: (1, 2, 4, 8), 4: (8,), 6: (8,)}
# The start of IHDR, its length and name, and its end: compression, filter and interlacing methods (none).
HEADER, METHODS = b"\0\0\0\x0dIHDR", b"\0\0\0"
HEADER_ENDS = 33


def decoded(files: Sequence[ImageFile], spec: ImageSpec) -> UInt8Array | None:
    """uint8 (n, *spec.shape); None if any of these files is not a small plain PNG."""
    total = 0
    for file in files:
        pixels = claimed_pixels(file.data)
        total += pixels
        if not pixels or total > MAX_PIXELS:
            return None
    try:
        return np.stack([load(bytes(file.data), spec, max_pixels=MAX_PIXELS) for file in files])
    except ImageError:
        return None  # the decoding process reports the error


def claimed_pixels(data: bytes | bytearray) -> int:
    """Width x height of a plain PNG according to its header; 0 for anything else."""
    size = len(data)
    if size > MAX_BYTES or data[:8] != SIGNATURE or data[8:16] != HEADER or data[26:29] != METHODS:
        return 0
    if data[24] not in DEPTHS.get(data[25], ()):
        return 0
    at, kind = HEADER_ENDS, b""
    while at + 12 <= size:
        length, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        if length > CHUNKS.get(kind, -1):
            return 0
        at += 12 + length
        if kind == b"IEND":
            break
    if at != size or kind != b"IEND":
        return 0
    return int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
