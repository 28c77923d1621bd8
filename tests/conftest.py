"""A real private Redis, the real app with real workers, and the data set where there is one."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from app.settings import Settings
from app.store.sync_store import SyncStore
from cli import private_redis

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class PrivateRedis:
    """A server that a test may kill and start again; what it acknowledged is kept."""

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
    """Settings for a private Redis in this folder, whatever the environment says."""
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
    """A fresh server for one test."""
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


@pytest.fixture(scope="session")
def omniglot() -> Path:
    """Where Omniglot lies: ``LAMANAS_OMNIGLOT``, else beside the repository. In CI its absence is a failure."""
    given = os.environ.get("LAMANAS_OMNIGLOT")
    folder = Path(given) if given else ROOT.parent / "shared" / "omniglot"
    if folder.is_dir():
        return folder
    reason = f"Omniglot is not at {folder}: set LAMANAS_OMNIGLOT to the folder with images_background and _evaluation"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
