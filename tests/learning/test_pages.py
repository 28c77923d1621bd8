"""The commands on the pages about training and plots run as they are written, with a miniature network."""

import re
import shlex
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from cli.main import main
from lamanas_core.config import PRESETS
from lamanas_core.train import loop as training
from tests.conftest import ROOT, PrivateRedis
from tests.learning.brief_training import SMALLEST, brief_recipe


def commands(page: str) -> list[list[str]]:
    text = (ROOT / "docs" / page).read_text()
    found = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return [shlex.split(line) for line in found.splitlines() if line]


def test_the_commands_of_the_pages_run_in_order(
    tmp_path: Path, redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(redis_server.settings.data_dir))
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setitem(PRESETS, "tiny", SMALLEST)
    monkeypatch.setattr(training, "recipe_for", lambda preset: brief_recipe(validate=False))
    for command in [*commands("training-on-your-data.md"), *commands("plots.md")]:
        if command[0] == "torchrun":
            # Its training is run here in a single process; other tests run several.
            started = get_args_parser().parse_args(command[1:])
            assert started.no_python
            assert started.nproc_per_node == "2"
            command = [started.training_script, *started.training_script_args]
        assert command[0] == "lamanas"
        assert main(command[1:]) == 0, command
    left = {path.name for path in (tmp_path / "runs" / "mine").iterdir()}
    told = re.findall(r"^\| (`[^|]*) \|", (ROOT / "docs" / "training-on-your-data.md").read_text(), re.MULTILINE)
    named = {name.rstrip("/") for row in told for name in re.findall(r"`([a-z]+[./][a-z]*)`", row)}
    assert named | {"plots"} == left - {"tensorboard"}
    assert {path.suffix for path in (tmp_path / "runs" / "mine" / "plots").iterdir()} == {".png", ".svg"}
