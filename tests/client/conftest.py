"""Both clients, on a clock that only the tests advance."""

from types import SimpleNamespace

import pytest

from lamanas_client import AsyncClient, Client, following, retries
from tests.app.conftest import live, server, settings, sync_store, token, worker  # noqa: F401
from tests.client.asking import Asking, Clock


@pytest.fixture(params=[Client, AsyncClient], ids=["blocking", "async"])
def asking(request: pytest.FixtureRequest) -> Asking:
    return Asking(request.param)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clients' clock. A pause advances it and takes no time."""
    clock = Clock()
    monkeypatch.setattr(retries, "asyncio", SimpleNamespace(sleep=clock.async_sleep))
    for module in (retries, following):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=clock.sleep, monotonic=lambda: clock.now))
    return clock
