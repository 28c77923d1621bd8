"""Conventions that no linter checks: values do not change, and sequences that are zipped have the same length."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("app", "benchmarks", "cli", "deploy", "lamanas_client", "lamanas_core", "workers")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# Accumulators, each used in one function or by one object.
CHANGING = {"app.images.pool._Work", "app.images.forms.Part", "lamanas_core.train.run_state.RunState"} | {
    "lamanas_core.train.run_folder.Curves",
    "cli.supervisor.Service",
}
# The shorter one decides how many are drawn; pairs of neighbours.
UNEVEN = {"lamanas_core/plots/landscape.py", "lamanas_core/plots/curves.py", "benchmarks/adapt.py"}


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def dataclasses_in(path: Path) -> Iterator[tuple[str, bool]]:
    """The full name of each data class, and whether it is frozen."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            for text in map(ast.unparse, node.decorator_list):
                if text.startswith("dataclass"):
                    yield f"{module(path)}.{node.name}", "frozen=True" in text


def test_data_classes_are_frozen_but_for_accumulators() -> None:
    found = dict(pair for path in FILES for pair in dataclasses_in(path))
    assert len(found) > 50
    assert {name for name, frozen in found.items() if not frozen} == CHANGING


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_zip_is_strict(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    zips = [ast.unparse(call) for call in calls if isinstance(call.func, ast.Name) and call.func.id == "zip"]
    if str(path.relative_to(ROOT)) not in UNEVEN:
        assert [text for text in zips if "strict=True" not in text and len(text.split(",")) > 1] == []
