"""The real app with a real private Redis; a test that needs a worker acts as the worker itself."""

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from app.http.limits import BytesInFlight
from app.main import create_app
from app.settings import Settings
from app.store.clients import SyncStore
from app.store.records import Scope
from cli import private_redis
from tests.app.playing import CARD, Worker
from tests.conftest import PrivateRedis, test_settings

Limited = Callable[..., TestClient]


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateRedis]:
    """One Redis server for all tests in this package; the fixture ``settings`` empties it."""
    folder = Path(tempfile.mkdtemp(prefix="lam-"))
    settings = test_settings(folder)
    server = PrivateRedis(settings, private_redis.start(settings))
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def settings(server: PrivateRedis) -> Settings:
    server.client.flushall()
    return server.settings


@pytest.fixture
def sync_store(settings: Settings) -> Iterator[SyncStore]:
    store = SyncStore.open(settings)
    store.models.register("0123456789abcdef", b"weights", CARD)
    yield store
    store.close()


@pytest.fixture
def worker(sync_store: SyncStore) -> Worker:
    return Worker(sync_store)


@pytest.fixture
def token(sync_store: SyncStore) -> Callable[..., str]:
    """Creates a key with the given scopes and returns its token."""

    def create(*scopes: Scope, tenant: str | None = None) -> str:
        return sync_store.api_keys.create("test", scopes, tenant=tenant)[1]

    return create


@pytest.fixture
def anonymous(settings: Settings, sync_store: SyncStore) -> Iterator[TestClient]:
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(anonymous: TestClient, token: Callable[..., str]) -> TestClient:
    """A client whose key has all scopes except ``admin``."""
    anonymous.headers["Authorization"] = f"Bearer {token('episodes', 'predict')}"
    return anonymous


@pytest.fixture
def admin(anonymous: TestClient, token: Callable[..., str]) -> TestClient:
    anonymous.headers["Authorization"] = f"Bearer {token('admin')}"
    return anonymous


@pytest.fixture
def limited(settings: Settings, token: Callable[..., str]) -> Iterator[Limited]:
    """A client with a new key, for an app with these settings."""
    opened: list[TestClient] = []

    def make(**values: Any) -> TestClient:
        changed = Settings.model_validate(settings.model_dump() | values)
        client = TestClient(create_app(changed), headers={"Authorization": f"Bearer {token('episodes', 'predict')}"})
        opened.append(client.__enter__())
        return client

    yield make
    for client in opened:
        client.__exit__()


@pytest.fixture
def in_flight_bytes(monkeypatch: pytest.MonkeyPatch) -> Iterator[BytesInFlight]:
    """The counter of an app that is created in this test."""
    in_flight = BytesInFlight(64 * 1024)
    monkeypatch.setattr("app.main.BytesInFlight", lambda *_: in_flight)
    yield in_flight
    assert in_flight.total == 0


@pytest.fixture
def live(settings: Settings, sync_store: SyncStore) -> Iterator[str]:
    """The URL of the app on a real server, for responses that are read while they are sent."""
    with serving(settings) as url:
        yield url


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The URL of an app with these settings on a real server."""
    listening = socket.create_server(("127.0.0.1", 0))
    uvicorn_server = uvicorn.Server(
        uvicorn.Config(create_app(settings), log_level="error", timeout_graceful_shutdown=5)
    )
    thread = threading.Thread(target=uvicorn_server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        uvicorn_server.should_exit = True
        thread.join()
        listening.close()
