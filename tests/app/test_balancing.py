"""Several app processes behind Caddy, configured as docker-compose.scale.yml does."""

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from app.http.problems import MEDIA_TYPE, UNAVAILABLE_NOW
from app.settings import Settings
from app.store.clients import SyncStore
from tests.app.conftest import serving
from tests.proxied import balanced


@contextmanager
def browsing(apps: Sequence[str], folder: Path) -> Iterator[httpx.Client]:
    """A client that goes through Caddy to these apps."""
    with (
        balanced(apps, folder) as proxy,
        httpx.Client(base_url=proxy.url, verify=ssl.create_default_context(cafile=proxy.certificate)) as client,
    ):
        yield client


@contextmanager
def dying() -> Iterator[tuple[str, threading.Event]]:
    """The URL of an app that dies when it has received a request, and whether it has."""
    died = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def die() -> None:
            connection, _ = listening.accept()
            connection.recv(1)
            connection.close()
            died.set()

        threading.Thread(target=die, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", died


def test_requests_go_to_the_app_that_is_left_and_without_any_are_refused_for_the_moment(
    settings: Settings, sync_store: SyncStore, short_folder: Path
) -> None:
    first, second = ExitStack(), ExitStack()
    apps = [first.enter_context(serving(settings)), second.enter_context(serving(settings))]
    with first, second, browsing(apps, short_folder) as client:
        assert client.get("/healthz").status_code == 200
        first.close()
        assert [client.post("/session").status_code for _ in range(10)] == [401] * 10
        second.close()
        refused = client.get("/healthz", timeout=60)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers["content-type"] == MEDIA_TYPE
    assert (refused.json()["type"], refused.json()["title"]) == (UNAVAILABLE_NOW.uri, UNAVAILABLE_NOW.title)


def test_a_get_whose_app_died_is_answered_by_another(
    settings: Settings, sync_store: SyncStore, short_folder: Path
) -> None:
    with dying() as (bad, died), serving(settings) as good, browsing([bad, good], short_folder) as client:
        for _ in range(100):
            assert client.get("/healthz").status_code == 200
            if died.is_set():
                break
    assert died.is_set()


def test_a_request_whose_app_died_is_not_said_to_be_safe_to_send_again(short_folder: Path) -> None:
    with dying() as (bad, _), browsing([bad], short_folder) as client:
        answer = client.post("/episodes", json={})
    assert answer.status_code == 502
    assert "retry-after" not in answer.headers
