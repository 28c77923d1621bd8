"""How commands find the service and the token."""

import io
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import admin, doctor, remote, serve
from cli.errors import CommandError
from tests.cli.remote.conftest import Lamanas
from tests.conftest import free_port, test_settings


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_the_printed_link_signs_in_and_only_the_user_can_read_the_login(
    lamanas: Lamanas, live: str, token: Callable[..., str], config: Path
) -> None:
    mine = token("episodes", "predict")
    assert f"signed in to {live} as test (episodes, predict)" in lamanas("login", f"{live}/#token={mine}")
    [file] = [path for path in config.rglob("*") if path.is_file()]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert lamanas.json("episodes") == []


def test_a_token_from_standard_input_replaces_the_previous_one(
    lamanas: Lamanas, live: str, token: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lamanas("login", f"{live}/#token={token('predict')}")
    typed(monkeypatch, token("episodes") + "\n")
    assert lamanas.json("login", live)["scopes"] == ["episodes"]
    assert lamanas.json("episodes") == []


def test_an_invalid_login_is_reported_and_not_stored(
    lamanas: Lamanas, live: str, monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    for url, words in (
        (live, "the bearer token is unknown"),
        ("lamanas.example.org", "must start with http:// or https://"),
        (f"http://127.0.0.1:{free_port()}", "nothing responds at http://127.0.0.1:"),
    ):
        typed(monkeypatch, "lam_wrong\n")
        lamanas("login", url, fails=True)
        assert words in lamanas.error
    assert not config.exists()


def test_without_a_login_the_service_of_this_data_directory_is_used(
    lamanas: Lamanas, live: str, token: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LAMANAS_PORT", live.rpartition(":")[2])
    monkeypatch.delenv("LAMANAS_HOST", raising=False)
    lamanas("episodes", fails=True)
    assert "not signed in: `lamanas login URL`" in lamanas.error
    admin.write_secret(test_settings(tmp_path / "data").admin_token_file, token("admin"), 0o600)
    assert lamanas.json("episodes") == []
    assert f"signed in to {live} as test" in lamanas("login")
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(tmp_path / "elsewhere"))
    assert lamanas.json("episodes") == []


def test_behind_a_proxy_commands_connect_to_the_proxy(live: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", live)  # a server that accepts connections
    monkeypatch.setenv("https_proxy", live.removeprefix("http://"))
    monkeypatch.setenv("no_proxy", "elsewhere.invalid")
    for scheme in ("http", "https"):
        remote.require_listener(f"{scheme}://service.invalid")
    with pytest.raises(CommandError, match=r"nothing responds at http://elsewhere\.invalid"):
        remote.require_listener("http://elsewhere.invalid")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(CommandError, match=r"the proxy that the environment names for https://service\.invalid"):
        remote.require_listener("https://service.invalid")


def test_a_service_on_this_machine_is_reached_without_a_proxy(
    signed_in: Lamanas, live: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    assert signed_in.json("episodes") == []
    assert doctor.login().state == "ok"
    assert serve.PROXYLESS.open(f"{live}/healthz", timeout=5).status == 200
