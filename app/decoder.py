"""Decodes uploaded images beside the event loop, in few threads and limited time."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from app.errors import BUSY, DECODING_TOO_SLOW, INVALID_IMAGE, Problem
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import ImageError, UInt8Array, load

THREADS = 2
SECONDS = 20.0


@dataclass(frozen=True)
class ImageFile:
    """The bytes of one image file and where in the request it stood, as the client would call it."""

    data: bytes | bytearray
    where: str


class Decoder:
    def __init__(self, *, max_pixels: int, seconds: float = SECONDS) -> None:
        self._max_pixels = max_pixels
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def arrays(self, files: Sequence[ImageFile], spec: ImageSpec) -> UInt8Array:
        """uint8 (n, *spec.shape). Raises Problem, naming the image, for one that cannot be read."""
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + self._seconds
        decoding = loop.run_in_executor(self._threads, self._decode_all, files, spec, deadline)
        try:
            # The thread looks at the clock between images; the second more is for one that does not come back.
            async with asyncio.timeout(self._seconds + 1):
                return await decoding
        except TimeoutError:
            raise self._too_slow() from None

    def decode_all(self, files: Sequence[ImageFile], spec: ImageSpec) -> UInt8Array:
        """As ``arrays``, in the calling thread."""
        return self._decode_all(files, spec, time.monotonic() + self._seconds)

    def _decode_all(self, files: Sequence[ImageFile], spec: ImageSpec, deadline: float) -> UInt8Array:
        arrays = np.empty((len(files), *spec.shape), dtype=np.uint8)
        for number, file in enumerate(files):
            if time.monotonic() > deadline:
                raise self._too_slow() if number else _busy()
            try:
                arrays[number] = load(bytes(file.data), spec, max_pixels=self._max_pixels)
            except ImageError as error:
                raise Problem(INVALID_IMAGE, f"{file.where}: {error}", image=file.where) from None
        return arrays

    def _too_slow(self) -> Problem:
        text = f"the images took more than {self._seconds:.0f} s to decode; send smaller ones"
        return Problem(DECODING_TOO_SLOW, text)


def _busy() -> Problem:
    return Problem(BUSY, "too many images of others wait to be decoded", headers={"Retry-After": "5"})
