"""Decodes uploaded images in a few processes beside the app, in limited time."""

import asyncio
import logging
import multiprocessing
import multiprocessing.forkserver
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

import numpy as np

from app.http.problems import BUSY, DECODING_TOO_SLOW, INVALID_IMAGE, Problem
from app.images import sandbox
from app.images.files import ImageFile
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array

T = TypeVar("T")
log = logging.getLogger(__name__)
PROCESSES = 2
SECONDS = 20.0

# A server that has loaded the image libraries and forks: a new process is there in milliseconds.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([sandbox.__name__])


@dataclass(frozen=True, eq=False)
class _Child:
    process: BaseProcess
    connection: Connection

    @classmethod
    def start(cls, max_pixels: int) -> "_Child":
        ours, theirs = _context.Pipe()
        process = _context.Process(target=sandbox.serve, args=(theirs, max_pixels), name="decoding", daemon=True)
        process.start()
        theirs.close()
        return cls(process, ours)

    def end(self) -> int | None:
        """Its exit code."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


class Decoder:
    """A job is one image, and a request has as many jobs at a time as there are processes: however many images it has,
    others wait for a few of them alone. Processes start when they are first needed, and again after one was lost.
    """

    def __init__(self, *, max_pixels: int, seconds: float = SECONDS) -> None:
        self._max_pixels = max_pixels
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(PROCESSES, thread_name_prefix="decode")
        self._children: set[_Child] = set()
        self._idle: deque[_Child] = deque()
        multiprocessing.forkserver.ensure_running()

    def close(self) -> None:
        """Stops running jobs, too."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for child in list(self._children):
            child.process.kill()
        self._threads.shutdown(wait=True)
        while self._idle:
            self._idle.pop().end()

    async def arrays(self, files: Sequence[ImageFile], spec: ImageSpec) -> UInt8Array:
        """uint8 (n, *spec.shape). Raises Problem, naming the image, for the first one that cannot be read."""
        deadline = time.monotonic() + self._seconds
        images = np.empty((len(files), *spec.shape), np.uint8)
        refused: dict[int, Exception] = {}
        left = iter(enumerate(files))
        await asyncio.gather(*(self._some(left, spec, deadline, images, refused) for _ in range(PROCESSES)))
        if refused:
            raise refused[min(refused)]
        return images

    async def then(self, files: Sequence[ImageFile], spec: ImageSpec, work: Callable[[UInt8Array], T]) -> T:
        """What ``work`` makes of the ``arrays``, in a thread: for a single image the one that waited for it, since to
        change threads would cost a small image more than its decoding. Raises Problem, too."""
        if len(files) != 1:
            images = await self.arrays(files, spec)
            return await self._run(lambda: work(images))
        deadline = time.monotonic() + self._seconds
        return await self._run(lambda: work(self._decoded(files[0], spec, deadline)[None]))

    async def _some(
        self,
        left: Iterator[tuple[int, ImageFile]],
        spec: ImageSpec,
        deadline: float,
        images: UInt8Array,
        refused: dict[int, Exception],
    ) -> None:
        """Decodes one file after another of those that are ``left``, until one is refused."""
        for number, file in left:
            try:
                images[number] = await self._run(lambda file=file: self._decoded(file, spec, deadline))  # type: ignore[misc]
            except Exception as error:
                refused[number] = error
            if refused:
                return

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _decoded(self, file: ImageFile, spec: ImageSpec, deadline: float) -> UInt8Array:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise Problem(BUSY, "too many other images are waiting to be decoded", headers={"Retry-After": "5"})
        child = self._given(sandbox.job(spec, seconds=seconds))
        try:
            child.connection.send_bytes(file.data)
            answer = child.connection.recv_bytes()
        except (EOFError, OSError):
            raise self._lost(child, file.where) from None
        self._idle.append(child)
        if answer[:1] == sandbox.REFUSAL:
            reason = answer.removeprefix(sandbox.REFUSAL).decode()
            raise Problem(INVALID_IMAGE, f"{file.where}: {reason}", image=file.where)
        return np.frombuffer(answer, np.uint8, offset=1).reshape(spec.shape)

    def _given(self, job: bytes) -> _Child:
        """A process that has the job and no file yet. One that died idle cannot take it and costs nobody anything."""
        with suppress(IndexError):  # no check before: another thread may take the last one in between
            while True:
                child = self._idle.pop()
                with suppress(OSError):  # sooner than ``is_alive``, which depends on the server that forked it
                    child.connection.send_bytes(job)
                    return child
                self._children.discard(child)
                child.end()
        child = _Child.start(self._max_pixels)
        self._children.add(child)
        with suppress(OSError):  # should it be dead already, no answer will come
            child.connection.send_bytes(job)
        return child

    def _lost(self, child: _Child, where: str) -> Problem:
        """The process did not come back from this image."""
        self._children.discard(child)
        code = child.end()
        log.warning("a decoding process ended (%s)", code)  # not ``where``, which can contain labels
        if code == -signal.SIGALRM:
            text = f"{where}: decoding takes too long; send smaller images, or fewer at a time"
            return Problem(DECODING_TOO_SLOW, text, image=where)
        return Problem(INVALID_IMAGE, f"{where}: the image makes its decoder fail", image=where)
