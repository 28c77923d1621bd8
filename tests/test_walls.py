"""Which part may import which: learned from the source, lazy imports included."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What the app may use of the core: it reads images and runs finished classifiers, without torch.
TORCH_FREE = ("artifact", "config", "data.sources.glyphs", "files", "genotype", "image_spec", "images")
FORBIDDEN = {
    "lamanas_core": ("app", "workers", "cli", "benchmarks", "fastapi", "celery", "redis"),
    "app": ("torch", "torchvision", "workers", "cli", "benchmarks"),
    "lamanas_client": ("app", "workers", "cli", "lamanas_core", "torch", "fastapi", "celery", "redis"),
    "workers": ("cli", "benchmarks", "fastapi", "app.main", "app.routes", "app.http", "app.images", "app.inference"),
}
# The store, the queue, the settings, logs and traces are what workers and app share; the rest of the app is not theirs.
WORKERS_MAY = ("app.queue", "app.settings", "app.store", "app.telemetry")


def imported(path: Path) -> Iterator[str]:
    """The full names of all modules that this file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_package_imports_nothing_beyond_its_wall(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    crossed = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imported(path)
        if any(within(name, forbidden) for forbidden in FORBIDDEN[package])
    ]
    assert not crossed


def test_app_uses_only_the_torch_free_part_of_the_core() -> None:
    crossed = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "app").rglob("*.py")
        for name in imported(path)
        if within(name, "lamanas_core") and not any(within(name, f"lamanas_core.{free}") for free in TORCH_FREE)
    ]
    assert not crossed


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_free_part_of_the_core_imports_only_itself_and_no_torch(module: str) -> None:
    path = ROOT / "lamanas_core" / f"{module.replace('.', '/')}.py"
    crossed = [
        name
        for name in imported(path)
        if within(name, "torch")
        or (within(name, "lamanas_core") and not any(within(name, f"lamanas_core.{free}") for free in TORCH_FREE))
    ]
    assert not crossed


def test_workers_know_only_settings_store_and_telemetry_of_the_app() -> None:
    crossed = [
        f"{path.name} imports {name}"
        for path in (ROOT / "workers").rglob("*.py")
        for name in imported(path)
        if within(name, "app") and not any(within(name, allowed) for allowed in WORKERS_MAY)
    ]
    assert not crossed


def test_image_is_given_every_package_that_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    installed = {name.removesuffix("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    given = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert installed <= given
