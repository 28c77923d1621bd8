"""Both clients, without waiting where a test does not mean to."""

from types import SimpleNamespace

import pytest

from lamanas_client import AsyncClient, Client, clients
from tests.app.conftest import live, server, settings, sync_store, token, worker  # noqa: F401
from tests.client.asking import Asking


@pytest.fixture(params=[Client, AsyncClient], ids=["blocking", "async"])
def asking(request: pytest.FixtureRequest) -> Asking:
    return Asking(request.param)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for; none is made."""
    made: list[float] = []

    async def pause(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(clients, "asyncio", SimpleNamespace(sleep=pause))
    monkeypatch.setattr(clients, "time", SimpleNamespace(sleep=made.append))
    return made
