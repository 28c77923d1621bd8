"""A fault point does nothing unless a test arms it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from workers import faults

REACH = "import sys; from workers import faults; faults.reach('adapted', sys.argv[1]); print('went on')"


def reach(folder: Path, id: str) -> "subprocess.Popen[str]":
    environment = os.environ | {faults.VARIABLE: str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", REACH, id], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )


def test_point_is_off_without_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(faults.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapted").touch()
    faults.reach("adapted", "e1")
    assert (tmp_path / "adapted").exists()


@pytest.mark.parametrize("armed_for", [None, "e2"])
def test_variable_alone_or_another_id_stops_no_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, armed_for: str | None
) -> None:
    monkeypatch.setenv(faults.VARIABLE, str(tmp_path))
    if armed_for is not None:
        (tmp_path / "adapted").write_text(armed_for)
    faults.reach("adapted", "e1")
    assert not (tmp_path / "adapted.stopped").exists()


def test_faults_are_not_a_setting() -> None:
    assert not [path for path in (ROOT / "app").rglob("*.py") if faults.VARIABLE in path.read_text()]
    reading = [path.name for path in (ROOT / "workers").rglob("*.py") if faults.VARIABLE in path.read_text()]
    assert reading == ["faults.py"]


@pytest.mark.parametrize("armed_for", ["", "e1"])
def test_armed_point_stops_one_process_until_it_is_continued(tmp_path: Path, armed_for: str) -> None:
    (tmp_path / "adapted").write_text(armed_for)
    process = reach(tmp_path, "e1")
    os.waitpid(process.pid, os.WUNTRACED)  # returns when it has stopped
    assert (tmp_path / "adapted.stopped").read_text() == f"{process.pid} e1"
    other, _ = reach(tmp_path, "e1").communicate(timeout=60)
    assert other == "went on\n"
    os.kill(process.pid, signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == "went on\n"
