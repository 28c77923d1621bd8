"""Starts processes, restarts those that exit, and stops them in order. Linux only (pidfd, prctl)."""

import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from cli import tether

log = logging.getLogger("lamanas")
# A process that exits sooner than this has failed to start. (Importing torch alone takes some seconds.)
START_S = 20.0
LONGEST_PAUSE_S = 10.0


@dataclass
class Service:
    """One process that is to run all the time, in its own session."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    handle: int = -1
    started: float = 0.0
    failed_starts: int = 0
    start_at: float = field(default=0.0)

    def start(self) -> None:
        """Raises OSError if the kernel starts no process now: for lack of memory, say."""
        tethered = tether.command(os.getpid(), self.command)
        self.started = time.monotonic()
        process = subprocess.Popen(tethered, env=self.environment, start_new_session=True)
        try:
            self.handle = os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            process.wait()
            raise
        self.process = process

    def restart(self) -> None:
        """Starts it again, or later if the kernel starts no process now."""
        try:
            self.start()
        except OSError as error:
            self._pause()
            log.warning("%s not started, trying again: %s", self.name, error)

    def ended(self) -> int:
        """Reaps it, to be started again. Returns its exit code."""
        lived = time.monotonic() - self.started
        code = self.reap()
        if lived < START_S:
            self._pause()
        else:
            self.failed_starts, self.start_at = 0, time.monotonic()
        return code

    def _pause(self) -> None:
        """Counts a failed start: the next one comes after a pause."""
        self.failed_starts += 1
        self.start_at = time.monotonic() + min(LONGEST_PAUSE_S, 0.25 * 2**self.failed_starts)

    def reap(self) -> int:
        """Its exit code, after it has exited. Kills the remaining processes of its session."""
        assert self.process is not None
        code = self.process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        os.close(self.handle)
        self.process, self.handle = None, -1
        return code


class Supervisor:
    """Use in the main thread, inside ``with supervisor.signals():``."""

    def __init__(self) -> None:
        self.services: list[Service] = []
        self.stop_asked = False
        self.hurry = False
        self._wake, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM request a stop; a SIGINT after that requests it at once.

        A second SIGTERM does not: one that is sent to a whole process group arrives twice under make, which forwards
        its own to its children.
        """

        def asked(number: int, frame: FrameType | None) -> None:
            self.hurry = self.hurry or (self.stop_asked and number == signal.SIGINT)
            self.stop_asked = True

        before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
        wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, name: str, command: Sequence[str], environment: dict[str, str]) -> Service:
        service = Service(name, command, environment)
        self.services.append(service)
        service.start()
        return service

    def watch(self, seconds: float | None) -> None:
        """Restarts what is due; returns after this time, or earlier after a signal or the exit of a process."""
        now = time.monotonic()
        for service in self.services:
            if service.process is None and now >= service.start_at:
                service.restart()
        due = [service.start_at - now for service in self.services if service.process is None]
        limits = [limit for limit in (seconds, *due) if limit is not None]
        for service in self._ended(min(limits) if limits else None):
            log.warning("%s exited (%s), restarting it", service.name, _words(service.ended()))

    def stop(self, services: Sequence[Service], seconds: float) -> None:
        """Sends SIGTERM to all; SIGKILL to those that still run after this time or after a second SIGINT."""
        running = [service for service in services if service.process is not None]
        for service in running:
            assert service.process is not None
            service.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while running and time.monotonic() < deadline and not self.hurry:
            for service in self._ended(deadline - time.monotonic(), running):
                service.reap()
                running.remove(service)
        for service in running:
            assert service.process is not None
            log.warning("%s did not exit in time, killing it", service.name)
            os.killpg(service.process.pid, signal.SIGKILL)
            service.reap()

    def _ended(self, seconds: float | None, among: Sequence[Service] | None = None) -> list[Service]:
        handles = {
            service.handle: service
            for service in (self.services if among is None else among)
            if service.process is not None
        }
        ready, _, _ = select.select([*handles, self._wake], [], [], None if seconds is None else max(0.0, seconds))
        if self._wake in ready:
            os.read(self._wake, 4096)
        return [handles[handle] for handle in ready if handle in handles]


def _words(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
