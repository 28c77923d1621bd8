"""What a decoding process does: a few images at a time, under limits that the kernel enforces.

Bytes from outside meet image libraries only here and, as small plain PNGs, in ``fast_png``. An image that makes a
library hang or crash costs this process and nothing else.
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

import numpy as np
from PIL import Image

from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import ImageError, UInt8Array, load

# Memory on top of what the process has at its start. The most expensive kind of image, 16-bit grey, was measured to
# need 18 bytes a pixel in addition to its file.
BYTES_PER_PIXEL = 24
BYTES_BESIDE = 256 * 2**20
# The largest image that is accepted needs less than one. A JPEG of 90 KB can be made to need 20, one of 1 MB minutes.
SECONDS_EACH = 5.0
# After the image during which this has passed, the process is free for another request.
TURN_SECONDS = 0.05
ARRAY, REFUSAL = b"+", b"-"

# Images over the configured limit are refused; Pillow need not warn of its own.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Loads all of Pillow's readers before processes are forked from the one that imported this.
Image.init()


def order(sizes: Sequence[int], spec: ImageSpec, *, seconds: float) -> bytes:
    """The first message of a turn; its files, of these sizes in bytes, follow in one message."""
    return json.dumps({"sizes": sizes, "spec": vars(spec), "seconds": seconds}).encode()


def serve(connection: Connection, at: ctypes.c_int, max_pixels: int) -> None:
    """Answers orders until the other end is closed. The answer to an order and its files is either a refusal of the
    first bad image, or the arrays of the leading images: all, unless TURN_SECONDS ran out after one of them.

    Messages are bytes, never pickles: what comes back is from a process that read foreign files.
    ``at`` is the number of the file being decoded, known to the app if that file ends this process.
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
        del asked, files  # they would take from the memory that the next turn may use


def _answer(at: ctypes.c_int, asked: dict[str, Any], files: memoryview, max_pixels: int) -> bytes:
    spec = ImageSpec(**asked["spec"])
    started = time.monotonic()
    images = [ARRAY]
    start = 0
    try:
        for number, size in enumerate(asked["sizes"]):
            at.value = number
            left = asked["seconds"] - (time.monotonic() - started)
            # The signal ends this process wherever it is, inside a library too. (0 would switch the timer off.)
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, min(SECONDS_EACH, left)))
            images.append(load(bytes(files[start : start + size]), spec, max_pixels=max_pixels).tobytes())
            start += size
            if time.monotonic() - started >= TURN_SECONDS:
                break
    except ImageError as error:
        return _refusal(number, str(error))
    except MemoryError:
        return _refusal(number, "it takes too much memory to decode")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return b"".join(images)


def _refusal(number: int, words: str) -> bytes:
    return REFUSAL + f"{number} {words}".encode(errors="replace")


def read_answer(answer: bytes, files: int, spec: ImageSpec) -> UInt8Array | tuple[int, str]:
    """The arrays of the first of so many files, uint8 (m, *spec.shape), or the number and the reason of a refusal.

    Raises ValueError for what no honest decoder says: the process may have been taken over by a file that it read.
    """
    if answer[:1] == REFUSAL:
        number, _, words = answer.removeprefix(REFUSAL).decode().partition(" ")
        if not (number.isascii() and number.isdigit() and int(number) < files):
            raise ValueError("a refusal of no file")
        return int(number), words
    arrays = np.frombuffer(answer, np.uint8, offset=1).reshape(-1, *spec.shape)
    if answer[:1] != ARRAY or not 0 < len(arrays) <= files:
        raise ValueError(f"{len(arrays)} arrays for {files} files")
    return arrays


def _limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
