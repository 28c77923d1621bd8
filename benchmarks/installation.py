"""A LAMANAS of the benchmark's own, as ``lamanas serve`` starts it, and other servers beside it; all on loopback."""

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

PATIENCE_S = 120.0
STOP_S = 40.0
LOOK_S = 0.1


class StartError(RuntimeError):
    """A server of the benchmark did not come up."""


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server with whatever it starts, in a session of its own; its output is kept in ``log``."""

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

    def until(self, holds: Callable[[], bool]) -> None:
        """Returns once ``holds()``. Raises StartError, with the end of its log, if that takes too long."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = self._log.read_text(errors="replace")[-2000:]
                raise StartError(f"{self.name} did not come up at {self.url}:\n{tail}")
            time.sleep(LOOK_S)

    def answers(self, path: str) -> bool:
        """Whether a GET of this is answered with 200."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5):  # noqa: S310 (our own address)
                return True
        except (urllib.error.URLError, OSError):
            return False

    def listens(self) -> bool:
        """Whether it answers anything at all."""
        try:
            with urllib.request.urlopen(self.url + "/openapi.json", timeout=5):  # noqa: S310 (our own address)
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def rest(self) -> None:
        """Holds its processes still: some servers poll when they have nothing to do."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Lets them go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Asks it to end, and kills what is left in its session."""
        with suppress(ProcessLookupError):
            self.wake()
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def lamanas(folder: Path, *, processes: int = 1) -> Iterator[tuple[Server, str]]:
    """``lamanas serve`` with this many adapt processes, on a data directory in ``folder``; and its admin token."""
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
        server.until(lambda: server.answers("/readyz"))
        yield server, (data / "admin-token").read_text().strip()
    finally:
        server.stop()


@contextmanager
def contestant(kind: str, folder: Path, artifact: Path) -> Iterator[Server]:
    """One of ``benchmarks.contestants`` over this artifact; held still until it is woken."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.contestants", kind, str(port), str(artifact)]
    server = Server(kind, command, port, folder / f"{kind}.log")
    try:
        server.until(server.listens)
        server.rest()
        yield server
    finally:
        server.stop()


def family(pid: int) -> list[int]:
    """The process and all below it."""
    below = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            below += [int(child) for child in tasks.read_text().split()]
    return [pid, *(one for child in below for one in family(child))]


def processor_seconds(pid: int) -> float:
    """What the process and all below it have had of processors so far."""
    ticks = 0
    for one in family(pid):
        with suppress(OSError):
            ticks += sum(int(word) for word in Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def within(server: Server, *words: str) -> list[int]:
    """The processes of ``lamanas`` with these arguments, and all below them."""
    ending = "\0".join(["cli.main", *words, ""]).encode()
    for pid in family(server.process.pid):
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(ending):
                return family(pid)
    raise StartError(f"{server.name} runs no lamanas {' '.join(words)}")


def memory_mb(pid: int) -> float:
    """What the process has in memory now, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
