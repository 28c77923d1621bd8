"""Real service processes with a private Redis, each of which can be killed, stopped and restarted."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from app.settings import SHARED, Settings
from app.store import keys
from app.store.clients import SyncStore
from app.store.errors import UNAVAILABLE
from cli import admin, private_redis, tether
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.config import PRESETS
from lamanas_core.meta_model import MetaModel
from tests.chaos.waiting import until
from tests.conftest import ROOT, free_port, test_settings
from tests.waiting import PATIENCE_S
from workers import faults

START_S = 300.0
# Adapts in hundredths of a second, since the runs test the service with hundreds of episodes.
SMALL = replace(
    PRESETS["tiny"], network=replace(PRESETS["tiny"].network, channels=4, nodes=2, cells=("normal", "reduction"))
)


@dataclass
class Part:
    """One service process and its children, in a separate session; its output is appended to ``log``."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = field(default=None)
    log_at_start: int = 0

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    def start(self) -> None:
        """Must be called in the main thread: the process ends with the thread that started it."""
        with self.log.open("ab") as log:
            self.log_at_start = log.tell()
            self.process = subprocess.Popen(
                tether.command(os.getpid(), self.command),
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def logged(self, text: str) -> int:
        """How often this text has been logged since the last start."""
        with self.log.open("rb") as log:
            log.seek(self.log_at_start)
            return log.read().count(text.encode())

    def signal_all(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kills the process and its children."""
        if self.process is not None:
            self.signal_all(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def terminate(self) -> int:
        """Sends SIGTERM, as an operator's restart does; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(PATIENCE_S)
        self.process = None
        return code


class Installation:
    """Redis, app processes on one port, two adapt workers and a train worker; the active meta-model is a very small,
    untrained one."""

    def __init__(self, folder: Path, *, apps: int = 1, **environment: str) -> None:
        self.settings: Settings = test_settings(folder / "data")
        self.faults = folder / "faults"
        self.faults.mkdir(parents=True)
        self.url = f"http://127.0.0.1:{free_port()}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LAMANAS_", "REDIS_"))}
        # With REDIS_URL set, each part runs as a separate process, as in docker-compose.yml.
        self._environment = inherited | {
            "REDIS_URL": self.settings.store_url,
            "LAMANAS_DATA_DIR": str(self.settings.data_dir),
            "LAMANAS_PORT": self.url.rpartition(":")[2],
            "LAMANAS_DEVICE": "cpu",
            faults.VARIABLE: str(self.faults),
        }
        if apps > 1:
            metrics = folder / "metrics"
            metrics.mkdir()
            self._environment[SHARED] = str(metrics)
        self._environment |= environment
        self._folder = folder
        # Commits are counted in the append-only file, which must therefore never be rewritten.
        redis = [*private_redis.prepare(self.settings), "--auto-aof-rewrite-percentage", "0"]
        self.redis = self._part("redis", redis)
        names = [f"app-{n}" for n in range(1, apps + 1)] if apps > 1 else ["app"]
        self.apps = [self._part(name, self._lamanas("app")) for name in names]
        self.adapters = [self._part(f"adapt-{n}", self._lamanas("worker", "adapt")) for n in (1, 2)]
        self.trainer = self._part("train", self._lamanas("worker", "train"))
        self.token = admin.mint(self.settings)
        self.store = SyncStore.open(self.settings)
        self.redis_client: Any = Redis.from_url(self.settings.store_url, retry=Retry(ConstantBackoff(0.05), 200))

    def _part(self, name: str, command: Sequence[str]) -> Part:
        return Part(name, command, self._environment, self._folder / f"{name}.log")

    @staticmethod
    def _lamanas(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "cli.main", *arguments]

    @property
    def parts(self) -> list[Part]:
        return [self.redis, *self.apps, *self.adapters, self.trainer]

    def client(self, timeout: float = 30.0) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout)

    def start(self, *, trainer: bool = True) -> None:
        self.redis.start()
        until(lambda: self.redis_responds(), "Redis responds", START_S)
        model = MetaModel(initial_parameters(SMALL, 0), {"config": SMALL.to_json()})
        self.store.models.register(model.version, model.to_bytes(), model.card)
        for part in (*self.apps, *self.adapters, *([self.trainer] if trainer else [])):
            part.start()
        until(self.ready, "the app is ready", START_S)
        self.until_workers(len(self.adapters))

    def until_workers(self, count: int) -> None:
        host = os.uname().nodename
        until(lambda: self.store.workers.count_on_host("adapt", host) >= count, f"{count} adapt workers", START_S)

    def redis_responds(self) -> bool:
        try:
            self.store.ping()
        except UNAVAILABLE:  # it is still starting or loading its file
            return False
        return True

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def part_of(self, pid: int) -> Part:
        """The part to which this process belongs."""
        return next(part for part in self.parts if part.process is not None and part.pid == os.getsid(pid))

    def commits(self) -> Counter[str]:
        """How often each episode was given a classifier."""
        return commits_in(self.settings.data_dir / "redis")

    def stop(self) -> None:
        for part in reversed(self.parts):
            part.kill()


def commits_in(folder: Path) -> Counter[str]:
    """How often each episode was given a classifier, according to the append-only files in this folder."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*.aof"):
        for words in _commands(path):
            if words[0].upper() == b"HSET" and words[1] == keys.CLASSIFIERS.encode():
                found[words[2].decode()] += 1
    return found


def _commands(path: Path) -> Iterator[list[bytes]]:
    """The commands of an append-only file: ``*<words>`` and then ``$<length>`` before each word."""
    with path.open("rb") as file:
        while head := file.readline():
            words = []
            for _ in range(int(head[1:])):
                length = int(file.readline()[1:])
                words.append(file.read(length + 2)[:-2])
            yield words


@contextmanager
def installed(folder: Path, *, trainer: bool = True, apps: int = 1, **environment: str) -> Iterator[Installation]:
    """A running installation; all its processes end with the block."""
    installation = Installation(folder, apps=apps, **environment)
    try:
        installation.start(trainer=trainer)
        yield installation
    except BaseException:
        for part in installation.parts:
            tail = part.log.read_text(errors="replace")[-3000:] if part.log.exists() else ""
            print(f"--- the end of {part.log.name}:\n{tail}", file=sys.stderr)
        raise
    finally:
        installation.stop()
