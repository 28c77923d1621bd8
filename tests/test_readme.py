"""The README's commands work as they stand: the examples are run, what sets up is looked up."""

import re
import shutil
from pathlib import Path

import pytest

from cli.main import COMMANDS
from tests.conftest import ROOT, Service
from tests.pages import blocks, run

README = (ROOT / "README.md").read_text()
EXAMPLES = "\n## First episode\n"
# These set up a machine, which a test run on that machine does not do.
SET_UP = ("make", "docker")


def sets_up(block: str) -> bool:
    return any(line.startswith(SET_UP) for line in block.splitlines())


def test_every_example_runs_in_the_order_of_the_page(service: Service, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.fail("curl is needed to run the README's examples")
    examples = [block for block in blocks(README.partition(EXAMPLES)[2]) if not sets_up(block)]
    assert examples, f"the README has no examples after {EXAMPLES.strip()!r}"
    printed = run("\n".join(examples), service, tmp_path)
    promised = re.search(r"the answer is (\w+)\.", README)
    assert promised, "the README no longer says what the prediction answers"
    assert f'"predictions":[{{"label":"{promised[1]}"' in printed


def test_every_make_target_of_the_page_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)\b(?=[\s`]*(?:$|#|`|\n))", README, re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"serve", "test"} <= named <= targets


def test_every_lamanas_command_of_the_page_exists() -> None:
    code = [*blocks(README), *re.findall(r"`([^`\n]+)`", README)]
    named = {name for text in code for name in re.findall(r"\blamanas ([a-z]+)\b", text)}
    assert "token" in named
    assert named <= COMMANDS.keys()


def test_every_linked_file_exists() -> None:
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []
