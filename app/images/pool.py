"""Decodes uploaded images in separate processes, under limits, in turns between keys."""

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
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np

from app.http.problems import BUSY, DECODING_TOO_SLOW, INVALID_IMAGE, Problem
from app.images import sandbox
from app.images.files import ImageFile
from app.images.turns import Turns
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array

log = logging.getLogger(__name__)
PROCESSES = 2
# The processor time that one call may take for decoding, and the total time that it may wait for a process. A request
# makes one call, or two for a support set of which only a part is judged.
SECONDS = 20.0
# One turn sends the first file whatever its size, and more files up to this total. A round trip takes as long as
# decoding three small drawings; files that were not decoded in time are sent again in the next turn.
TURN_BYTES = 256 * 1024
# Of the clock of another process, as clock_getcpuclockid(3) computes it, which Python does not have.
CPUCLOCK_SCHED = 2

# A server that has loaded the image libraries and forks: a new process starts in milliseconds.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([sandbox.__name__])


@dataclass(frozen=True, eq=False)
class _Child:
    """``at``: the index of the file in its turn that it is decoding, in memory that outlives the process. Read it only
    while no other thread can use this child."""

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

    def processor_seconds(self) -> float:
        """The processor time that it has taken so far. Raises OSError if it has ended."""
        assert self.process.pid is not None
        return time.clock_gettime(~self.process.pid << 3 | CPUCLOCK_SCHED)

    def end(self) -> int | None:
        """Kills the process; returns its exit code."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


@dataclass
class _Work:
    """The images of one request: those decoded so far, and the remaining seconds for decoding and for waiting.

    ``turn_seconds``: the processor time that the last turn took.
    """

    files: Sequence[ImageFile]
    specs: Sequence[ImageSpec]
    decoding_left: float
    waiting_left: float
    queued_at: float = 0.0
    turn_seconds: float = 0.0
    decoded: list[list[UInt8Array]] = field(default_factory=list)
    done: int = 0

    def next_files(self) -> Sequence[ImageFile]:
        """The files of the next turn: at least one, and more up to TURN_BYTES in total."""
        end, total = self.done + 1, len(self.files[self.done].data)
        while end < len(self.files) and total + len(self.files[end].data) <= TURN_BYTES:
            total += len(self.files[end].data)
            end += 1
        return self.files[self.done : end]


class Decoder:
    """Starts processes when they are first needed, and replaces those that died.

    After each turn the next key has its turn (see ``turns``), so that requests of 1,000 images delay a single image of
    another key by no more than one turn, however many requests there are.
    """

    def __init__(
        self, *, max_pixels: int, seconds: float = SECONDS, waited: Callable[[float], object] = lambda seconds: None
    ) -> None:
        """``waited`` is called with the seconds that the images of each call have waited for a process."""
        self._max_pixels = max_pixels
        self._seconds = seconds
        self._waited = waited
        self._threads = ThreadPoolExecutor(PROCESSES, thread_name_prefix="decode")
        self._turns = Turns(PROCESSES)
        self._children: set[_Child] = set()
        self._idle: deque[_Child] = deque()
        multiprocessing.forkserver.ensure_running()

    def close(self) -> None:
        """Stops the processes, whatever they are doing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for child in list(self._children):
            child.process.kill()
        self._threads.shutdown(wait=True)
        while self._idle:
            self._idle.pop().end()

    async def arrays(self, key: str, files: Sequence[ImageFile], spec: ImageSpec) -> UInt8Array:
        """uint8 (n, *spec.shape), read-only, for a request of this key. Raises Problem: one that names the image if it
        cannot be read, and BUSY if the request has waited too long for its turns."""
        return (await self.arrays_for(key, files, [spec]))[0]

    async def arrays_for(self, key: str, files: Sequence[ImageFile], specs: Sequence[ImageSpec]) -> list[UInt8Array]:
        """As ``arrays``, for each of ``specs``; each file is decoded once."""
        work = _Work(files, specs, decoding_left=self._seconds, waiting_left=self._seconds)
        try:
            while work.done < len(files):
                work.queued_at = time.monotonic()
                await self._turns.wait(key)
                turn = asyncio.get_running_loop().run_in_executor(self._threads, self._turn, work)
                turn.add_done_callback(lambda _: self._turns.end(key, work.turn_seconds))
                # Shielded: if the client disconnects, the turn still ends when its process is free.
                await asyncio.shield(turn)
        finally:
            self._waited(self._seconds - work.waiting_left)
        together = [np.concatenate(turns) for turns in zip(*work.decoded, strict=True)]
        for arrays in together:
            arrays.flags.writeable = False
        return together

    def _turn(self, work: _Work) -> None:
        """Decodes some of the images. Raises Problem."""
        started = time.monotonic()
        work.waiting_left -= started - work.queued_at
        if work.waiting_left <= 0:
            raise Problem(BUSY, "too many images of other requests wait to be decoded", headers={"Retry-After": "5"})
        files = work.next_files()
        answer = self._answer(files, work)
        work.decoding_left -= work.turn_seconds
        if isinstance(answer, tuple):
            at, words = answer
            where = files[at].where
            raise Problem(INVALID_IMAGE, f"{where}: {words}", image=where)
        work.decoded.append(answer)
        work.done += len(answer[0])

    def _answer(self, files: Sequence[ImageFile], work: _Work) -> list[UInt8Array] | tuple[int, str]:
        """A process's answer about these files (see ``sandbox.read_answer``). Raises Problem if the process dies."""
        order = sandbox.order([len(file.data) for file in files], work.specs, seconds=work.decoding_left)
        together = b"".join(file.data for file in files)
        child = self._ordered(order)
        try:
            before = child.processor_seconds()
            child.connection.send_bytes(together)
            answer = sandbox.read_answer(child.connection.recv_bytes(), len(files), work.specs)
            work.turn_seconds = child.processor_seconds() - before
        except (EOFError, OSError, ValueError):
            work.turn_seconds = sandbox.SECONDS_EACH  # it may have been less; the process is gone
            # A process that a hostile file has taken over may have written any number to ``at``.
            at = min(max(child.at.value, 0), len(files) - 1)
            raise self._lost(child, files[at].where) from None
        self._idle.append(child)
        return answer

    def _ordered(self, order: bytes) -> _Child:
        """A process that has received the order, but no file yet. One that died while idle is replaced."""
        with suppress(IndexError):  # no check first: another thread may take the last one in between
            while True:
                child = self._idle.pop()
                child.at.value = 0
                with suppress(
                    OSError
                ):  # fails sooner than ``is_alive``, for which the fork server must report the exit
                    child.connection.send_bytes(order)
                    return child
                self._children.discard(child)
                child.end()
        child = _Child.start(self._max_pixels)
        self._children.add(child)
        with suppress(OSError):  # if it has died already, receiving its answer fails
            child.connection.send_bytes(order)
        return child

    def _lost(self, child: _Child, where: str) -> Problem:
        """The problem of the image that the process was decoding when it died."""
        self._children.discard(child)
        code = child.end()
        log.warning("a decoding process ended (%s)", code)  # without ``where``: it may hold a label
        if code in (-signal.SIGPROF, -signal.SIGALRM):
            text = f"{where}: decoding takes too long; send smaller images, or fewer at a time"
            return Problem(DECODING_TOO_SLOW, text, image=where)
        return Problem(INVALID_IMAGE, f"{where}: the image makes its decoder fail", image=where)
