"""Commands as functions, signed in to a service. The files of the user are neither read nor written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import remote
from cli.main import main
from tests.app.conftest import live, server, settings, sync_store, token, worker  # noqa: F401


class Lamanas:
    """Runs commands and captures their output."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.error = ""

    def __call__(self, *arguments: object, fails: bool = False) -> str:
        """Run a command and return its standard output; ``error`` is then its standard error."""
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = self._capsys.readouterr()
        self.error = printed.err
        assert code == int(fails), printed.err
        assert "Traceback" not in printed.err
        return printed.out

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's configuration folder, empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def lamanas(capsys: pytest.CaptureFixture[str]) -> Lamanas:
    return Lamanas(capsys)


@pytest.fixture
def signed_in(lamanas: Lamanas, live: str, token: Callable[..., str]) -> Lamanas:  # noqa: F811
    """Commands signed in as admin to the app, whose worker the test simulates."""
    remote.keep(remote.Login(live, token("admin")))
    return lamanas
