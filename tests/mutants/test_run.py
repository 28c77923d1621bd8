"""Faults in a small project of its own: found or not, once and never again, and never in the working tree."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.mutants import __main__ as command
from tests.mutants.results import Result, Results, summary
from tests.mutants.run import BaselineError, Run
from tests.mutants.sample import Mutant, sample

AREAS = {"all": ("part/*.py",)}
TABLE = {"part/": "part/whole"}
# Half of what the module does is tested, in a process that the test starts.
MODULE = "def tested(a, b):\n    return a - b\n\n\ndef untested(a, b):\n    return a * b\n"
TEST = """import subprocess, sys

def test_tested():
    code = "from part.module import tested; print(tested(5, 3))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "2\\n"
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Of pytest's plugins, the runs here need the one whose option they are given.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "_hypothesis_pytestplugin")
    files = {
        "part/__init__.py": "",
        "part/module.py": MODULE,
        "tests/part/test_whole.py": TEST,
        ".gitignore": "runs/\n",
    }
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "root", check=True)
    return tmp_path / "root"


def a_run(root: Path, seconds: float = 600) -> Run:
    return Run(root, Results(root / "runs"), time.monotonic() + seconds, TABLE)


def mutants(root: Path) -> list[Mutant]:
    return sorted(sample(root, AREAS, 10, 1), key=lambda mutant: mutant.line)


def outcomes(run: Run, root: Path) -> list[str | None]:
    return [result.outcome if (result := run.result(mutant)) else None for mutant in mutants(root)]


def test_what_the_tests_find_is_killed_and_the_rest_survives(root: Path) -> None:
    run = a_run(root)
    run.go(mutants(root), 2)
    assert outcomes(run, root) == ["killed", "survived"]
    assert (root / "part" / "module.py").read_text() == MODULE
    killed, survived = (run.result(mutant) for mutant in mutants(root))
    assert killed
    assert survived
    assert killed.by == "tests/part/test_whole.py::test_tested"
    assert "-    return a * b" in survived.diff
    assert summary([("all", killed), ("all", survived)])[-1] == "mutants: tried 2, killed 1"


def test_a_second_run_goes_on_and_a_changed_file_makes_its_own_results_unknown(root: Path) -> None:
    (root / "part" / "other.py").write_text("x = 1\n")
    a_run(root).go(mutants(root), 2)
    again = a_run(root)
    assert None not in outcomes(again, root)
    (root / "part" / "other.py").write_text("x = 1\ny = 2\n")
    unknown = {m.path for m in mutants(root) if a_run(root).result(m) is None}
    assert unknown == {"part/other.py"}


def test_a_changed_test_makes_unknown_what_it_had_to_do_with(root: Path) -> None:
    a_run(root).go(mutants(root), 2)
    (root / "tests" / "part" / "test_whole.py").write_text(TEST + "\n\ndef test_more():\n    pass\n")
    assert outcomes(a_run(root), root) == [None, None]


def test_tests_that_fail_without_a_fault_are_an_error(root: Path) -> None:
    (root / "tests" / "part" / "test_whole.py").write_text("def test_wrong():\n    assert False\n")
    with pytest.raises(BaselineError, match=r"test_whole\.py fails without any fault"):
        a_run(root).go(mutants(root), 1)
    assert outcomes(a_run(root), root) == [None, None]


def test_nothing_is_begun_once_the_time_is_up(root: Path) -> None:
    run = a_run(root, seconds=0)
    run.go(mutants(root), 2)
    assert outcomes(run, root) == [None, None]


def test_an_endless_fault_is_killed_by_the_clock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.mutants.run.AND_S", 0.0)
    (root / "part" / "module.py").write_text("def go():\n    while False:\n        pass\n")
    (root / "tests" / "part" / "test_whole.py").write_text(
        "from part import module\n\ndef test_go():\n    module.go()\n"
    )
    run = a_run(root)
    run.go(mutants(root), 2)
    assert outcomes(run, root) == ["timeout"] * len(mutants(root))
    assert summary([("all", known) for mutant in mutants(root) if (known := run.result(mutant))])[-1].endswith(
        "killed 1"
    )


def known(outcome: str, by: str) -> Result:
    return Result("id", "part/module.py", 1, outcome, by, 1.0, {"tests/a.py": "1", "tests/b.py": "2"}, "")


def test_a_kill_holds_while_its_test_file_does_and_a_survival_while_all_do() -> None:
    killed, survived = known("killed", "tests/a.py::test_x"), known("survived", "")
    for one in (killed, survived):
        assert one.holds({"tests/a.py": "1", "tests/b.py": "2"})
        assert not one.holds({"tests/a.py": "changed", "tests/b.py": "2"})
    assert killed.holds({"tests/a.py": "1", "tests/b.py": "changed"})
    assert not survived.holds({"tests/a.py": "1", "tests/b.py": "changed"})


def test_a_record_that_was_cut_short_spoils_no_other(root: Path) -> None:
    run = a_run(root)
    run.go(mutants(root), 2)
    path = root / "runs" / "results.jsonl"
    whole = path.read_text()
    path.write_text(whole.rstrip()[:-5])
    assert sorted(map(str, outcomes(a_run(root), root))).count("None") == 1
    a_run(root).go(mutants(root), 2)
    assert outcomes(a_run(root), root) == ["killed", "survived"]


def test_the_command_tells_how_much_it_has_not_tried(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "ROOT", root)
    monkeypatch.setattr(command, "AREAS", AREAS)
    monkeypatch.setattr(command, "FOLDER", root / "runs")
    monkeypatch.setattr(command, "Run", partial(Run, table=TABLE))
    monkeypatch.setattr("signal.signal", lambda *_: None)  # this process keeps its own handlers
    monkeypatch.setattr(sys, "argv", ["mutants", "--places", "5", "--seed", "1", "--minutes", "0"])
    assert command.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "not tried: 2 of 2 within 0 minutes: the same command goes on from here"
    assert lines[-1] == "mutants: tried 0, killed 0"
