"""``lamanas datasets`` on a running store."""

import json
from pathlib import Path

import pytest

from app.settings import Settings
from app.store.clients import SyncStore
from cli.main import main


def test_a_data_set_is_stored_listed_and_removed(
    installation: Settings, sync_store: SyncStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "parts" / "a").mkdir(parents=True)
    (tmp_path / "parts" / "a" / "1.png").write_bytes(b"")
    assert main(["datasets"]) == 0
    assert capsys.readouterr().out == "no data set is stored\n"
    assert main(["datasets", "add", str(tmp_path / "parts")]) == 0
    assert capsys.readouterr().out == "stored parts, 1 files\n\ntrain on it:  lamanas train start parts\n"
    assert main(["datasets", "add", str(tmp_path / "parts"), "--name", "others", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "others", "files": 1}
    assert main(["datasets", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == sync_store.folders.datasets() == ["others", "parts"]
    assert main(["datasets", "remove", "parts"]) == 0
    assert capsys.readouterr().out == "removed parts\n"
    assert main(["datasets", "remove", "parts"]) == 1
    assert "there is no stored data set 'parts'" in capsys.readouterr().err
    assert main(["datasets"]) == 0
    assert capsys.readouterr().out == "others\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "missing"),
        (["."], "has no files"),
        ([".", "--name", "../up"], "'../up' cannot name a data set"),
        ([".", "--name", "parts\n"], "cannot name a data set"),
    ],
)
def test_what_cannot_be_stored_is_told(
    installation: Settings,
    sync_store: SyncStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    (tmp_path / "parts").mkdir()
    monkeypatch.chdir(tmp_path / "parts")
    assert main(["datasets", "add", *arguments]) == 1
    assert words in capsys.readouterr().err
    assert sync_store.folders.datasets() == []
