"""What a decoding process does: images of one request after another, under limits that the kernel enforces.

Foreign bytes meet image libraries here and, small plain PNGs, in ``fast_png``. An image
that hangs or breaks them costs this process.
"""

import ctypes
import json
import resource
import signal
import time
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import ImageError, load

# What it may take beside what it has from the start. The most expensive kind of image, 16-bit grey, was measured to
# need 18 bytes a pixel beside its file.
BYTES_PER_PIXEL = 24
BYTES_BESIDE = 256 * 2**20
# The largest image that is taken needs less than one. 90 KB of a JPEG can be made to need 20, and 1 MB minutes.
SECONDS_EACH = 5.0
ARRAY, REFUSAL = b"+", b"-"

# What is too large is told by the limit that was set, not by a warning.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Loads all readers now, before processes are forked from the one that imported this.
Image.init()


def order(sizes: Sequence[int], spec: ImageSpec, *, seconds: float) -> bytes:
    """What a request begins with; its files, of these sizes in bytes, follow in one message."""
    return json.dumps({"sizes": sizes, "spec": vars(spec), "seconds": seconds}).encode()


def serve(connection: Connection, at: ctypes.c_int, max_pixels: int) -> None:
    """Until the other end is closed: an order, its files; back comes one answer, all images or the first refusal.

    ``at`` says which file is being decoded: should that one end this process, it is known.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the app
    _limit_memory(BYTES_BESIDE + BYTES_PER_PIXEL * max_pixels)
    while True:
        try:
            asked = json.loads(connection.recv_bytes())
            files = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(_answer(at, asked, memoryview(files), max_pixels))
        del asked, files  # they would share the memory there is with the next request


def _answer(at: ctypes.c_int, asked: dict[str, Any], files: memoryview, max_pixels: int) -> bytes:
    spec = ImageSpec(**asked["spec"])
    deadline = time.monotonic() + asked["seconds"]
    images = [ARRAY]
    start = 0
    try:
        for number, size in enumerate(asked["sizes"]):
            at.value = number
            # Its signal ends this process wherever it is, inside of a library too. (0 would switch it off.)
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, min(SECONDS_EACH, deadline - time.monotonic())))
            images.append(load(bytes(files[start : start + size]), spec, max_pixels=max_pixels).tobytes())
            start += size
    except ImageError as error:
        return _refusal(number, str(error))
    except MemoryError:
        return _refusal(number, "it takes too much memory to decode")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return b"".join(images)


def _refusal(number: int, words: str) -> bytes:
    return REFUSAL + f"{number} {words}".encode(errors="replace")


def refused(answer: bytes) -> tuple[int, str]:
    """The number of the file that a refusal is of, and why."""
    number, _, words = answer.removeprefix(REFUSAL).decode().partition(" ")
    return int(number), words


def _limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
