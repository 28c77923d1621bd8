"""Decodes uploaded images in a few processes of their own, in limited time."""

import asyncio
import ctypes
import logging
import multiprocessing
import multiprocessing.forkserver
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

import numpy as np

from app.http.problems import BUSY, DECODING_TOO_SLOW, INVALID_IMAGE, Problem
from app.images import sandbox
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array

T = TypeVar("T")
log = logging.getLogger(__name__)
PROCESSES = 2
SECONDS = 20.0

# A server that has loaded the image libraries and forks: a new process is there in milliseconds.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([sandbox.__name__])


@dataclass(frozen=True)
class ImageFile:
    """The bytes of one image file and where in the request it stood, as the client would call it."""

    data: bytes | bytearray
    where: str


@dataclass(frozen=True, eq=False)
class _Child:
    """``at``: which file of its request it is at, in memory that outlives it; to be read while nobody else has it."""

    process: BaseProcess
    connection: Connection
    at: ctypes.c_int

    @classmethod
    def start(cls, max_pixels: int) -> "_Child":
        ours, theirs = _context.Pipe()
        at = _context.RawValue(ctypes.c_int)
        process = _context.Process(target=sandbox.serve, args=(theirs, at, max_pixels), name="decoding", daemon=True)
        process.start()
        theirs.close()
        return cls(process, ours, at)

    def end(self) -> int | None:
        """Its exit code."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


class Decoder:
    """Processes start when they are first needed, and again after one was lost."""

    def __init__(self, *, max_pixels: int, seconds: float = SECONDS) -> None:
        self._max_pixels = max_pixels
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(PROCESSES, thread_name_prefix="decode")
        self._children: set[_Child] = set()
        self._idle: deque[_Child] = deque()
        multiprocessing.forkserver.ensure_running()

    def close(self) -> None:
        """Stops what runs, too."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for child in list(self._children):
            child.process.kill()
        self._threads.shutdown(wait=True)
        while self._idle:
            self._idle.pop().end()

    async def arrays(self, files: Sequence[ImageFile], spec: ImageSpec) -> UInt8Array:
        """uint8 (n, *spec.shape), read-only. Raises Problem, naming the image, for one that cannot be read."""
        return await self.then(files, spec, lambda images: images)

    async def then(self, files: Sequence[ImageFile], spec: ImageSpec, work: Callable[[UInt8Array], T]) -> T:
        """What ``work`` makes of the ``arrays``, in the thread that waited for them: a second one would cost a small
        image more than its sandbox. Raises Problem, too."""
        deadline = time.monotonic() + self._seconds

        def run() -> T:
            return work(self._decode(files, spec, deadline))

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _decode(self, files: Sequence[ImageFile], spec: ImageSpec, deadline: float) -> UInt8Array:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise Problem(BUSY, "too many images of others wait to be decoded", headers={"Retry-After": "5"})
        order = sandbox.order([len(file.data) for file in files], spec, seconds=seconds)
        together = b"".join(file.data for file in files)
        child = self._ordered(order)
        try:
            child.connection.send_bytes(together)
            answer = child.connection.recv_bytes()
        except (EOFError, OSError):
            # What died at foreign bytes may have written anything there.
            at = min(max(child.at.value, 0), len(files) - 1)
            raise self._lost(child, files[at].where) from None
        self._idle.append(child)
        if answer[:1] == sandbox.REFUSAL:
            at, words = sandbox.refused(answer)
            where = files[at].where
            raise Problem(INVALID_IMAGE, f"{where}: {words}", image=where)
        return np.frombuffer(answer, np.uint8, offset=1).reshape(len(files), *spec.shape)

    def _ordered(self, order: bytes) -> _Child:
        """A process that has the order and no file yet. One that died idle cannot take it and costs nobody anything."""
        with suppress(IndexError):  # no check before: another thread may take the last one in between
            while True:
                child = self._idle.pop()
                child.at.value = 0
                with suppress(OSError):  # sooner than ``is_alive``, which the server that forked it must tell of first
                    child.connection.send_bytes(order)
                    return child
                self._children.discard(child)
                child.end()
        child = _Child.start(self._max_pixels)
        self._children.add(child)
        with suppress(OSError):  # should it be dead already, no answer will come
            child.connection.send_bytes(order)
        return child

    def _lost(self, child: _Child, where: str) -> Problem:
        """The process did not come back from this image."""
        self._children.discard(child)
        code = child.end()
        log.warning("a decoding process ended (%s)", code)  # of ``where``, which has labels in it, no log tells
        if code == -signal.SIGALRM:
            text = f"{where}: decoding takes too long; send smaller images, or fewer at a time"
            return Problem(DECODING_TOO_SLOW, text, image=where)
        return Problem(INVALID_IMAGE, f"{where}: the image makes its decoder fail", image=where)
