"""What a decoding process does: one image after another, under limits that the kernel enforces.

Foreign bytes meet image libraries here and, small plain PNGs, in ``fast_png``. An image that hangs or breaks them costs
this process. Bytes go back and forth, never pickled objects: what a hostile image could make this process send must not
run code in the app.
"""

import json
import resource
import signal
import warnings
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
# The largest image that is accepted needs less than one. 90 KB of a JPEG can be made to need 20, and 1 MB minutes.
SECONDS_EACH = 5.0
ARRAY, REFUSAL = b"+", b"-"

# What is too large is refused by the limit that was set, not by a warning.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Loads all readers now, before processes are forked from the one that imported this.
Image.init()


def job(spec: ImageSpec, *, seconds: float) -> bytes:
    """What a job begins with: what the image must become, and in how much time. The file follows in one message."""
    return json.dumps({"spec": vars(spec), "seconds": seconds}).encode()


def serve(connection: Connection, max_pixels: int) -> None:
    """Until the other end is closed: a job, its file; back comes one answer, the image or a refusal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the app
    _limit_memory(BYTES_BESIDE + BYTES_PER_PIXEL * max_pixels)
    while True:
        try:
            asked = json.loads(connection.recv_bytes())
            file = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(_answer(asked, file, max_pixels))
        del asked, file  # they would share the memory there is with the next job


def _answer(asked: dict[str, Any], file: bytes, max_pixels: int) -> bytes:
    spec = ImageSpec(**asked["spec"])
    # Its signal ends this process wherever it is, inside of a library too. (0 would switch it off.)
    signal.setitimer(signal.ITIMER_REAL, max(1e-3, min(SECONDS_EACH, asked["seconds"])))
    try:
        return ARRAY + load(file, spec, max_pixels=max_pixels).tobytes()
    except ImageError as error:
        return _refusal(str(error))
    except MemoryError:
        return _refusal("it takes too much memory to decode")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _refusal(reason: str) -> bytes:
    return REFUSAL + reason.encode(errors="replace")


def _limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
