"""``lamanas keys`` on a running store."""

import json
import re

import pytest

from app.settings import Settings
from app.store.clients import SyncStore
from cli.main import main
from tests.conftest import ROOT, PrivateRedis


def token_and_id(output: str) -> tuple[str, str]:
    token, id = re.search(r"lam_\S+", output), re.search(r"^key (\S+)", output)
    assert token, output
    assert id, output
    return token[0], id[1]


def test_a_key_is_created_listed_without_its_token_and_revoked(
    installation: Settings, sync_store: SyncStore, redis_server: PrivateRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "make", "camera 7", "--scope", "predict", "--tenant", "shop"]) == 0
    token, id = token_and_id(capsys.readouterr().out)
    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    row = next(line for line in listed.splitlines() if id in line)
    assert re.search(r"valid .* predict +shop +camera 7$", row), row
    assert token not in listed
    stored = [redis_server.client.dump(name) for name in redis_server.client.scan_iter("*")]
    assert all(token.encode() not in value for value in stored if isinstance(value, bytes))
    assert main(["keys", "revoke", id]) == 0
    assert sync_store.api_keys.get(id).revoked


def test_a_key_has_by_default_all_scopes_but_admin_and_its_own_tenant(
    installation: Settings, sync_store: SyncStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "make", "laptop"]) == 0
    _, id = token_and_id(capsys.readouterr().out)
    key = sync_store.api_keys.get(id)
    assert (sorted(key.scopes), key.tenant) == (["episodes", "predict"], id)


def test_an_unknown_key_cannot_be_revoked(installation: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "revoke", "0" * 26]) == 1
    assert "lamanas keys list" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["  "], ["a\nb"], ["laptop", "--tenant", "two words"], ["laptop", "--tenant", ""]]
)
def test_a_name_that_would_break_the_table_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "make", *arguments]) == 1
    assert capsys.readouterr().out == ""


def test_without_a_running_store_the_message_says_what_to_check(
    short_folder: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(short_folder))
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert main(["keys", "list"]) == 1
    assert "lamanas serve" in capsys.readouterr().err


def test_the_commands_of_the_operations_page_work(
    installation: Settings, sync_store: SyncStore, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    commands = re.findall(r"^lamanas (keys .*)$", page, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        words = [sync_store.api_keys.all()[0].id if word == "ID" else word for word in command.split()]
        assert main(words) == 0
    assert "revoked" in capsys.readouterr().out


def test_json_contains_the_token_only_when_a_key_is_created(
    installation: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    def json_of(*words: str) -> object:
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    created = json_of("keys", "make", "camera 7", "--scope", "predict")
    assert isinstance(created, dict)
    token = created.pop("token")
    assert created["scopes"] == ["predict"]
    assert json_of("keys", "list") == [created]
    revoked = json_of("keys", "revoke", created["id"])
    assert isinstance(revoked, dict)
    assert revoked == created | {"revoked": True, "revoked_at": revoked["revoked_at"]}
    assert revoked["revoked_at"] >= created["created_at"] - 1
    assert token.startswith("lam_")
