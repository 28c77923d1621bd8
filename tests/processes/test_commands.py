"""The small commands, called as functions."""

import socket
import stat
import threading
from pathlib import Path

import pytest
import uvicorn

from app.settings import Settings
from app.store.clients import SyncStore
from cli import admin, app
from cli.errors import CommandError
from cli.main import COMMANDS, main
from tests.conftest import test_settings


@pytest.fixture
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("REDIS_URL", raising=False)
    return tmp_path


def test_token_before_the_first_start_explains_what_to_do(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token"]) == 1
    assert f"there is no {data_dir}/admin-token" in capsys.readouterr().err


def test_init_creates_secrets_once_and_token_prints_one(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--secrets", str(data_dir / "secrets")]) == 0
    secrets = {path: path.read_text() for path in data_dir.rglob("*") if path.is_file()}
    assert {path.name for path in secrets} == {"admin-token", "redis-password", "redis.conf"}
    assert (
        secrets[data_dir / "secrets" / "redis.conf"].split()[1]
        == secrets[data_dir / "secrets" / "redis-password"].strip()
    )
    assert stat.S_IMODE((data_dir / "admin-token").stat().st_mode) == 0o600
    assert main(["init", "--secrets", str(data_dir / "secrets")]) == 0
    assert {path: path.read_text() for path in data_dir.rglob("*") if path.is_file()} == secrets
    capsys.readouterr()
    assert main(["token"]) == 0
    assert capsys.readouterr().out == secrets[data_dir / "admin-token"]


def test_minting_twice_keeps_the_first_token(tmp_path: Path) -> None:
    settings = test_settings(tmp_path)
    first = admin.mint(settings)
    assert first.startswith("lam_")
    assert admin.mint(settings) == first == admin.read(settings)
    assert [path.name for path in tmp_path.iterdir()] == ["admin-token"]


def test_a_start_does_not_print_a_token_whose_key_is_revoked(settings: Settings, sync_store: SyncStore) -> None:
    admin.ensure(settings, sync_store)
    [key] = sync_store.api_keys.all()
    admin.ensure(settings, sync_store)  # a second start
    sync_store.api_keys.revoke(key.id)
    with pytest.raises(CommandError, match=rf"{settings.admin_token_file} is revoked: .* or delete it"):
        admin.ensure(settings, sync_store)
    app.ensure_admin(settings)  # an additional app process of an installation with other keys starts anyway
    settings.admin_token_file.unlink()
    admin.ensure(settings, sync_store)
    assert [one.revoked for one in sync_store.api_keys.all()] == [True, False]


def test_an_unused_connection_is_kept_for_longer_than_proxies_keep_it(settings: Settings) -> None:
    assert app.server_config(settings).timeout_keep_alive > 60
    server = uvicorn.Server(app.server_config(settings.model_copy(update={"keep_alive_seconds": 1})))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        with socket.create_connection(listening.getsockname(), timeout=4) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))  # until the server closes it
        server.should_exit = True
        thread.join()
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_of_each_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "example:" in capsys.readouterr().out


def test_unknown_command_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fly"])
    assert ended.value.code == 2
    assert "serve" in capsys.readouterr().err
