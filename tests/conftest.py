"""Fixtures: a real private Redis, a running service, and the Omniglot data set if it is available."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from app.settings import Settings
from app.store.clients import SyncStore
from cli import private_redis, tether
from tests.waiting import PATIENCE_S, until_line

ROOT = Path(__file__).resolve().parent.parent


# Folders whose files have few tests that take long. They run first: a process that started one of them last would work
# on alone.
LONG = ("processes", "chaos", "workers", "end_to_end", "mutants", "benchmarks", "e2e", "learning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {folder: rank for rank, folder in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(LONG)))


def skip_unless_in_ci(reason: str) -> NoReturn:
    """Skips the test, since this machine lacks something; in CI, where nothing may be lacking, the test fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass
class PrivateRedis:
    """A server that a test may kill and restart; it keeps all acknowledged writes."""

    settings: Settings
    process: subprocess.Popen[bytes]

    @property
    def client(self) -> Redis:
        return Redis.from_url(self.settings.store_url, retry=Retry(ConstantBackoff(0.02), 500))

    def restart(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = private_redis.start(self.settings)
        self.client.ping()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def test_settings(folder: Path, **values: object) -> Settings:
    """Settings for a private Redis in this folder, independent of the environment."""
    return Settings(_env_file=None, redis_url=None, data_dir=folder, **values)  # type: ignore[call-arg, arg-type]


test_settings.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """An empty folder whose path leaves room for a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="lam-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_server(short_folder: Path) -> Iterator[PrivateRedis]:
    """A new server for one test."""
    settings = test_settings(short_folder)
    server = PrivateRedis(settings, private_redis.start(settings))
    server.client.ping()
    yield server
    server.stop()


@pytest.fixture
def settings(redis_server: PrivateRedis) -> Settings:
    return redis_server.settings


@pytest.fixture
def sync_store(redis_server: PrivateRedis) -> Iterator[SyncStore]:
    store = SyncStore.open(redis_server.settings)
    yield store
    store.close()


@dataclass
class Service:
    """A running ``lamanas serve`` with its Redis, workers and app."""

    url: str
    token: str
    data_dir: Path
    process: subprocess.Popen[str]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def store_url(self) -> str:
        return test_settings(self.data_dir).store_url


def free_port() -> int:
    """A port of the loopback address that is currently unused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve_process(data_dir: Path, code: Path = ROOT, /, **changed: str) -> subprocess.Popen[str]:
    """``lamanas serve``, as ``lamanas`` below."""
    return lamanas("serve", data_dir, code, **changed)


def lamanas(command: str, data_dir: Path, code: Path = ROOT, /, **changed: str) -> subprocess.Popen[str]:
    """A command in a separate session, with these settings in its environment; its output is piped. ``code``: the
    folder of the release whose command it is."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LAMANAS_", "REDIS_"))}
    environment = inherited | {
        "LAMANAS_DATA_DIR": str(data_dir),
        "LAMANAS_PORT": str(free_port()),
        "LAMANAS_DEVICE": "cpu",
        "PYTHONPATH": str(code),
    }
    return subprocess.Popen(
        # Tethered, so that even a killed test run leaves no process behind.
        tether.command(os.getpid(), [sys.executable, "-m", "cli.main", command]),
        cwd=code,
        env=environment | changed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until_serving(process: subprocess.Popen[str], data_dir: Path) -> Service:
    """Waits until it reports that it is ready. A thread reads its further output, so that the pipe never fills."""
    lines = until_line(process, "try:")
    output = "".join(lines)
    url = re.search(r"ready at (http://\S+)", output)
    token = re.search(r"admin token: (lam_\S+)", output)
    assert url, output
    assert token, output
    threading.Thread(target=lambda: deque(process.stdout or (), maxlen=0), daemon=True).start()
    return Service(url[1], token[1], data_dir, process)


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """One running service for all tests that do not disturb it; other tests start their own."""
    folder = Path(tempfile.mkdtemp(prefix="lam-"))
    process = serve_process(folder)
    try:
        yield until_serving(process, folder)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def omniglot() -> Path:
    """The folder of Omniglot: ``LAMANAS_OMNIGLOT``, or else next to the repository. In CI its absence is a failure."""
    given = os.environ.get("LAMANAS_OMNIGLOT")
    folder = Path(given) if given else ROOT.parent / "shared" / "omniglot"
    if folder.is_dir():
        return folder
    reason = f"Omniglot is not at {folder}: set LAMANAS_OMNIGLOT to the folder with images_background and _evaluation"
    skip_unless_in_ci(reason)
