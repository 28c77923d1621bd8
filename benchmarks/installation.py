"""Starts the servers of a benchmark on loopback: ``lamanas serve`` with its own data directory, and others."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cli import tether

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 40.0
POLL_S = 0.1


class StartError(RuntimeError):
    """A server of the benchmark did not start."""


def free_port() -> int:
    """A port of the loopback address that is currently unused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server and its child processes, in a separate session; its output is written to ``log``."""

    def __init__(self, name: str, command: Sequence[str], port: int, log: Path, **changed: str) -> None:
        self.name, self.url, self._log = name, f"http://127.0.0.1:{port}", log
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("LAMANAS_", "REDIS_"))}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                tether.command(os.getpid(), command),
                env=inherited | changed,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Waits until ``holds()``. Raises StartError, with the end of the log, if the server exits or is too slow."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = self._log.read_text(errors="replace")[-2000:]
                raise StartError(f"{self.name} did not start at {self.url}:\n{tail}")
            time.sleep(POLL_S)

    def responds(self, path: str) -> bool:
        """Whether a GET request for this path succeeds."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5):  # noqa: S310 (the URL is on loopback)
                return True
        except (urllib.error.URLError, OSError):
            return False

    def listens(self) -> bool:
        """Whether the server responds at all, with any status."""
        try:
            with urllib.request.urlopen(self.url + "/openapi.json", timeout=5):  # noqa: S310 (the URL is on loopback)
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def suspend(self) -> None:
        """Suspends its processes: some servers poll while they are idle."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Resumes its processes."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Terminates the server, and kills what remains in its session."""
        with suppress(ProcessLookupError):
            self.resume()
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT_S)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def lamanas(folder: Path, *, processes: int = 1) -> Iterator[tuple[Server, str]]:
    """``lamanas serve`` with this many adapt processes and a data directory in ``folder``; and its admin token."""
    data = folder / "data"
    port = free_port()
    server = Server(
        "lamanas serve",
        [sys.executable, "-m", "cli.main", "serve"],
        port,
        folder / "serve.log",
        LAMANAS_DATA_DIR=str(data),
        LAMANAS_PORT=str(port),
        LAMANAS_DEVICE="cpu",
        LAMANAS_ADAPT_PROCESSES=str(processes),
    )
    try:
        server.wait_until(lambda: server.responds("/readyz"))
        yield server, (data / "admin-token").read_text().strip()
    finally:
        server.stop()


@contextmanager
def contestant(kind: str, folder: Path, artifact: Path) -> Iterator[Server]:
    """One of ``benchmarks.contestants`` with this artifact, suspended until ``resume`` is called."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.contestants", kind, str(port), str(artifact)]
    server = Server(kind, command, port, folder / f"{kind}.log")
    try:
        server.wait_until(server.listens)
        server.suspend()
        yield server
    finally:
        server.stop()


def process_tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    below = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            below += [int(child) for child in tasks.read_text().split()]
    return [pid, *(one for child in below for one in process_tree(child))]


def processor_seconds(pid: int) -> float:
    """The processor time that the process and its descendants have used so far."""
    ticks = 0
    for one in process_tree(pid):
        with suppress(OSError):
            ticks += sum(int(word) for word in Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def processes_of(server: Server, *arguments: str) -> list[int]:
    """The process of ``lamanas`` with these arguments, and its descendants."""
    ending = "\0".join(["cli.main", *arguments, ""]).encode()
    for pid in process_tree(server.process.pid):
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(ending):
                return process_tree(pid)
    raise StartError(f"{server.name} runs no lamanas {' '.join(arguments)}")


def memory_mb(pid: int) -> float:
    """The resident memory of the process, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
