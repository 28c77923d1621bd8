"""The service behind real proxies with TLS: below a prefix of nginx, which buffers, and behind Caddy."""

import os
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from lamanas_client import Client, Progress
from tests.app.playing import Worker, png
from tests.app.test_episodes import as_json
from tests.proxied import Proxy, balanced, proxied

SUPPORT = {"alpha": [png(0), png(0, 1)], "beta": [png(1), png(1, 1)]}


@pytest.fixture(params=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest, live: str, short_folder: Path) -> Iterator[Proxy]:
    with proxied(live, short_folder) if request.param == "nginx" else balanced([live], short_folder) as running:
        yield running


@pytest.fixture
def browser(proxy: Proxy) -> Iterator[httpx.Client]:
    """Trusts the proxy's certificate, follows no redirect and keeps cookies."""
    with httpx.Client(verify=ssl.create_default_context(cafile=proxy.certificate), trust_env=False) as client:
        yield client


def test_pages_and_what_they_load_are_below_the_prefix(proxy: Proxy, browser: httpx.Client) -> None:
    for path in ("", "docs"):
        page = browser.get(proxy.url + path)
        assert page.status_code == 200
        for link in re.findall(r'(?:href|src)="([^"#]+)"', page.text):
            assert browser.get(urljoin(str(page.url), link)).status_code == 200, link


def test_redirects_and_locations_stay_below_the_prefix(
    proxy: Proxy, browser: httpx.Client, token: Callable[..., str]
) -> None:
    browser.headers["Authorization"] = f"Bearer {token('episodes')}"
    moved = browser.get(f"{proxy.url}episodes/?limit=3")
    assert urljoin(str(moved.url), moved.headers["location"]) == f"{proxy.url}episodes?limit=3"
    created = browser.post(f"{proxy.url}episodes", **as_json())
    found = browser.get(urljoin(str(created.url), created.headers["location"]))
    assert found.json()["id"] == created.json()["id"]


def test_a_session_begins_with_a_secure_cookie(proxy: Proxy, browser: httpx.Client, token: Callable[..., str]) -> None:
    headers = {
        "Authorization": f"Bearer {token('predict')}",
        "X-Forwarded-Proto": "http",
    }  # what a client says is ignored
    answer = browser.post(f"{proxy.url}session", headers=headers)
    assert "secure" in answer.headers["set-cookie"].lower().split("; ")
    assert browser.get(f"{proxy.url}session").json()["scopes"] == ["predict"]


def test_the_client_works_below_the_prefix_and_events_arrive_while_they_happen(
    proxy: Proxy, token: Callable[..., str], worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "SSL_CERT_FILE", str(proxy.certificate))
    with Client(proxy.url, token("episodes", "predict")) as client:
        id = client.create_episode(SUPPORT).id
        news = client.watch_episode(id)
        assert next(news) == Progress(step=0, steps=3, loss=(), ahead=0)
        claim = worker.claim(id)
        assert next(news) == Progress(step=0, steps=3, loss=())
        worker.step(claim, [0.5])
        assert next(news) == Progress(step=1, steps=3, loss=(0.5,))
        worker.finish(claim)
        assert [prediction.label for prediction in client.predict(id, [png(1)])] == ["beta"]


def test_a_body_of_the_largest_size_passes_the_proxy(
    proxy: Proxy, browser: httpx.Client, token: Callable[..., str]
) -> None:
    browser.headers["Authorization"] = f"Bearer {token('episodes')}"
    answer = browser.post(
        f"{proxy.url}episodes", content=bytes(96 * 2**20 + 1), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/body-too-large")
