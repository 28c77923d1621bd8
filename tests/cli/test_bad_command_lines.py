"""Invalid command lines are refused with a one-line message that names the error."""

import re
import urllib.error
from pathlib import Path

import pytest

from cli.main import main
from lamanas_core.data.sources import omniglot as omniglot_download
from lamanas_core.data.sources.glyphs import write_folders


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glyphs")
    write_folders(folder, classes=8, images=3, seed=0)
    return folder


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """The exit status, and the output on standard error."""
    try:
        code: object = main(arguments)
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert printed.out == ""
    return code, printed.err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("evaluate --data {data} --episodes 0", "--episodes: 0 is not between 1 and"),
        ("evaluate --data {data} --episodes many", "--episodes: invalid number value: 'many'"),
        ("evaluate --data {data} --queries 0", "--queries: 0 is not"),
        ("evaluate --data {data} --shots 0", "--shots: 0 is not"),
        ("evaluate --data {data} --ways 1", "--ways: 1 is not between 2 and"),
        ("evaluate --data {data} --threads 0", "--threads: 0 is not"),
        ("evaluate --data {data} --steps -1", "--steps: -1 is not between 0 and"),
        ("evaluate --data {data} --seed -1", "--seed: -1 is not"),
        ("evaluate --data {data} --compare-steps 3 -1", "--compare-steps: -1 is not between 0 and"),
        ("train --data {data} --run {run} --threads 0", "--threads: 0 is not"),
        ("train --data {data} --run {run} --seed -1", "--seed: -1 is not"),
        ("bench predict --runs 0", "--runs: 0 is not"),
        ("bench adapt --threads 0", "--threads: 0 is not"),
        ("bench serve --seconds 0", "--seconds: 0 is not"),
        ("reproduce table1 --data {data} --run {run} --seed -1", "--seed: -1 is not"),
        ("plot loss-landscape --seed -1", "--seed: -1 is not"),
        ("episodes --limit 0", "--limit: 0 is not"),
    ],
)
def test_an_invalid_number_is_refused(
    command: str, message: str, glyphs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = run([part.format(data=glyphs, run=tmp_path / "run") for part in command.split()], capsys)
    assert code == 2
    [line] = re.findall(r"^lamanas .*: error: .*$", error, re.MULTILINE)
    assert message in line
    assert error.endswith(line + "\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--ablate --told", "argument --told: not allowed with argument --ablate"),
        ("--compare-steps 1 2 --ablate", "argument --ablate: not allowed with argument --compare-steps"),
        ("--told --compare-steps 1 2", "argument --compare-steps: not allowed with argument --told"),
    ],
)
def test_evaluation_makes_one_comparison_at_a_time(
    options: str, message: str, glyphs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = run(["evaluate", "--data", str(glyphs), "--episodes", "1", *options.split()], capsys)
    assert code == 2
    assert error.splitlines()[-1].endswith(f": error: {message}")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("evaluate --data {data} --model {none}", "{none}/model.json: No such file or directory"),
        ("evaluate --data {none}", "{none} is not a folder"),
        ("evaluate --data {data} --ablate --steps 5", "--steps has no effect on --ablate"),
        ("evaluate --data {data} --compare-steps 3 5 --steps 5", "--steps has no effect on --compare-steps"),
        ("evaluate --data {data} --restyled", "--restyled is for --compare-steps only"),
        ("evaluate --data {data} --one-shot-runs", "{data} contains neither one_shot_runs nor one_shot_runs.zip"),
        ("evaluate --data {data} --one-shot-runs --ways 5 --uneven", "--ways, --uneven: no effect on --one-shot-runs"),
        ("train --data {data} --run {run} --split lake", "{data} is not Omniglot, which the split `lake` is of"),
        ("train --data {data} --run {run} --start {none}", "{none}/model.json: No such file or directory"),
        ("train --data {data} --run {data}/glyph000/00.png", "{data}/glyph000/00.png: File exists"),
        ("train --data {data} --run {run} --shots 0", "shots must be at least 1"),
        ("reproduce table1 --data {data} --run {run} --seed 3", "--seed is 3; budget small has the seeds 0 to 2"),
        ("plot genotype {none}", "{none} contains neither a model nor a checkpoint"),
        ("init --secrets {data}/glyph000/00.png", "{data}/glyph000/00.png/redis-password: Not a directory"),
        ("login http://[::1", "http://[::1 is not the URL of a service: Invalid IPv6 URL"),
        ("login http://127.0.0.1:99999", "nothing responds at http://127.0.0.1:99999"),
    ],
)
def test_an_impossible_request_is_reported_in_one_line(
    command: str,
    message: str,
    glyphs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(tmp_path / "data"))
    names = {"data": glyphs, "run": tmp_path / "run", "none": tmp_path / "none"}
    code, error = run([part.format_map(names) for part in command.split()], capsys)
    assert code == 1
    assert message.format_map(names) in error
    assert error.startswith("lamanas ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_download_without_a_network_says_what_to_do_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(folder: Path) -> Path:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(omniglot_download, "download", unreachable)
    code, error = run(["data", "omniglot", "--to", str(tmp_path)], capsys)
    assert code == 1
    assert "Name or service not known" in error
    assert "pass that as --data" in error
    assert error.count("\n") == 1


def test_a_stored_login_with_an_invalid_address_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "lamanas").mkdir()
    (tmp_path / "lamanas" / "login.json").write_text('{"url": "http://[::1", "token": "lam_x"}')
    code, error = run(["episodes"], capsys)
    assert (code, error.count("\n")) == (1, 1)
    assert "http://[::1 (Invalid IPv6 URL)" in error
