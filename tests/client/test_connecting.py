"""What a client makes of a URL, a token and the environment, and what it does while the event loop runs."""

import asyncio
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from lamanas_client import AsyncClient, Client, LamanasError, NotLamanasError
from tests.client.asking import EPISODE, Asking, Told, problem
from tests.conftest import free_port

TOKEN = "lam_" + "s3cret" * 7


def session() -> httpx.Response:
    return httpx.Response(200, json={"name": "x", "scopes": []})


@pytest.mark.parametrize("key", [TOKEN + "\n", f" {TOKEN}\r\n"])
def test_a_token_may_end_as_the_line_of_a_file(asking: Asking, key: str) -> None:
    told = Told(session())
    asking.ask(told, "session", key=key)
    assert told.asked[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("key", ["", "\n", f"{TOKEN}\nX-Other: 1", f"{TOKEN}…", f"{TOKEN}\x00"])
def test_what_cannot_be_a_token_is_refused_without_repeating_it(asking: Asking, key: str) -> None:
    with pytest.raises(ValueError, match="token") as refused:
        asking.ask(Told(), "session", key=key)
    assert "lamanas token" in str(refused.value)
    assert not_repeated(refused.value)


def failures() -> Iterator[tuple[str, str]]:
    """Settings of the environment and URLs with which every request fails."""
    yield "HTTP_PROXY", "http://example.invalid:1"
    yield "", "http://[::1"
    yield "", f"http://127.0.0.1:{free_port()}"
    yield "", f"http://127.0.0.1:{free_port()}/#token={TOKEN}"


@pytest.mark.parametrize(("name", "value"), list(failures()), ids=lambda each: each.partition(":")[0] or "url")
def test_no_error_repeats_the_token(asking: Asking, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asking.options = {"retries": None}
    if name:
        monkeypatch.setenv(name, value)
    with pytest.raises((LamanasError, ValueError, httpx.HTTPError, httpx.InvalidURL)) as failed:
        asking.ask("http://example.invalid" if name else value, "session", key=TOKEN)
    assert not_repeated(failed.value)


@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_no_answer_makes_the_client_repeat_the_token(asking: Asking, status: int) -> None:
    asking.options = {"retries": None}
    answer = problem(401, "invalid-token", "unknown") if status == 401 else httpx.Response(status, text="hello")
    with pytest.raises((LamanasError, ValueError, httpx.HTTPError, httpx.InvalidURL)) as failed:
        asking.ask(Told(answer), "session", key=TOKEN)
    assert not_repeated(failed.value)


def not_repeated(error: BaseException) -> bool:
    """Whether neither the text nor the variables of the client and its libraries hold the token."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    while told is not None:
        ours = [frame for frame in told.stack if "/tests/" not in frame.filename]
        words = "".join([*told.format_exception_only(), *(str(frame.locals) for frame in ours)])
        if TOKEN in words or TOKEN[:20] in words:
            return False
        told = told.__cause__ or told.__context__  # type: ignore[assignment]
    return True


def test_the_link_that_the_service_prints_is_a_url(asking: Asking) -> None:
    told = Told(session())
    with Client(f"http://stub/lamanas/#token={TOKEN}", TOKEN, transport=httpx.MockTransport(told)) as client:
        client.session()
    assert str(told.asked[0].url) == "http://stub/lamanas/session"
    assert TOKEN not in repr(client)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY", "http_proxy"])
def test_loopback_is_reached_without_a_proxy(
    asking: Asking, live: str, token: Callable[..., str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    asking.options = {"retries": None}
    for url in (live, live.replace("127.0.0.1", "localhost")):
        assert asking.ask(url, "session", key=token("predict")).scopes == ("predict",)


def test_files_are_read_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: set[int] = set()
    read = Path.read_bytes

    def noted(path: Path) -> bytes:
        readers.add(threading.get_ident())
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(name.encode())
    told = Told(httpx.Response(202, json=EPISODE), httpx.Response(200, json={"predictions": []}))

    async def asked() -> None:
        async with AsyncClient("http://stub", TOKEN, transport=httpx.MockTransport(told)) as client:
            await client.create_episode(tmp_path)
            await client.predict("x", [tmp_path / "a" / "1.png"])

    asyncio.run(asked())
    assert readers
    assert threading.get_ident() not in readers


def test_a_proxy_that_accepts_less_than_the_service_is_told_from_the_service(asking: Asking) -> None:
    html = httpx.Response(413, text="<html>413 Request Entity Too Large</html>")
    with pytest.raises(
        NotLamanasError, match=r"0\.0\d+ MB, which is too large.*a proxy in front of the service.*smaller images"
    ):
        asking.ask(Told(html), "create_episode", {"a": [bytes(10_000)], "b": [b"2"]})
