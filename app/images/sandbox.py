"""The code of a decoding process: it decodes a few images at a time, under limits that the kernel enforces.

Image libraries read bytes from clients only here and, for small plain PNGs, in ``fast_png``. An image that makes a
library hang or crash affects only this process.
"""

import ctypes
import json
import math
import resource
import signal
import time
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lamanas_core.image_files import ImageError, register_heif
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array, load_for

# Memory on top of what a process has at its start: 637 MiB with the default limit of 50 megapixels. At that size, HEIC
# needs 480 MiB, AVIF up to 550 MiB, and WebP at its own limit 470 MiB. The rest is for the file.
BYTES_PER_PIXEL = 8
BYTES_BESIDE = 256 * 2**20
# Seconds of a processor: those in which a busy machine lets it wait do not count. The largest accepted image, a PNG of
# 50 megapixels with transparency, needs 2.5 s. A crafted JPEG of 90 KB can take 20 s, and one of 1 MB minutes.
SECONDS_EACH = 5.0
# For a process that hangs without computing: the same limit by the clock, so many times as long.
BY_THE_CLOCK = 12
# A turn ends after the image during which this time has passed; then the process is free for another request.
TURN_SECONDS = 0.05
ARRAY, REFUSAL = b"+", b"-"

# Loads all of Pillow's decoders before processes are forked from the one that imported this module.
Image.init()
register_heif()


def order(sizes: Sequence[int], specs: Sequence[ImageSpec], *, seconds: float) -> bytes:
    """The first message of a turn; its files, of these sizes in bytes, follow in a second message."""
    return json.dumps({"sizes": sizes, "specs": [vars(spec) for spec in specs], "seconds": seconds}).encode()


def serve(connection: Connection, at: ctypes.c_int, max_pixels: int) -> None:
    """Answers orders until the connection is closed. The answer to an order is either a refusal of the first invalid
    image, or the arrays of the leading images, one for each spec: of all images, unless TURN_SECONDS passed before the
    last one.

    Messages are bytes, never pickles, since this process reads untrusted files. ``at`` is the index of the file being
    decoded: the app reads it if that file kills this process.
    """
    warnings.simplefilter("ignore")  # what is wrong with a file is in the answer, not in the app's log
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the app handles Ctrl-C
    _limit_memory(BYTES_BESIDE + BYTES_PER_PIXEL * max_pixels)
    while True:
        try:
            asked = json.loads(connection.recv_bytes())
            files = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(_answer(at, asked, memoryview(files), max_pixels))
        del asked, files  # frees their memory for the next turn


def _answer(at: ctypes.c_int, asked: dict[str, Any], files: memoryview, max_pixels: int) -> bytes:
    specs = [ImageSpec(**spec) for spec in asked["specs"]]
    started, used = time.monotonic(), time.process_time()
    images = [ARRAY]
    start = 0
    try:
        for number, size in enumerate(asked["sizes"]):
            at.value = number
            left = max(1e-3, min(SECONDS_EACH, asked["seconds"] - (time.process_time() - used)))
            # The signals kill this process even inside a library. (0 would disable a timer.)
            signal.setitimer(signal.ITIMER_PROF, left)
            signal.setitimer(signal.ITIMER_REAL, BY_THE_CLOCK * left)
            arrays = load_for(bytes(files[start : start + size]), specs, max_pixels=max_pixels)
            images += [array.tobytes() for array in arrays]
            start += size
            if time.monotonic() - started >= TURN_SECONDS:
                break
    except ImageError as error:
        return _refusal(number, str(error))
    except MemoryError:
        return _refusal(number, "it takes too much memory to decode: make the image smaller, or send it as JPEG")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return b"".join(images)


def _refusal(number: int, words: str) -> bytes:
    return REFUSAL + f"{number} {words}".encode(errors="replace")


def read_answer(answer: bytes, files: int, specs: Sequence[ImageSpec]) -> list[UInt8Array] | tuple[int, str]:
    """The arrays of the first m of ``files`` files, uint8 (m, *spec.shape) for each spec, or the index and reason of a
    refusal.

    Raises ValueError for an invalid answer: a hostile file may have taken over the process.
    """
    if answer[:1] == REFUSAL:
        number, _, words = answer.removeprefix(REFUSAL).decode().partition(" ")
        if not (number.isascii() and number.isdigit() and int(number) < files):
            raise ValueError("a refusal of no file")
        return int(number), words
    sizes = [math.prod(spec.shape) for spec in specs]
    together = np.frombuffer(answer, np.uint8, offset=1).reshape(-1, sum(sizes))
    if answer[:1] != ARRAY or not 0 < len(together) <= files:
        raise ValueError(f"{len(together)} images for {files} files")
    parts = np.split(together, np.cumsum(sizes)[:-1], axis=1)
    return [part.reshape(-1, *spec.shape) for part, spec in zip(parts, specs, strict=True)]


def _limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
