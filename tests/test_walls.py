"""Which part may import which: learned from the source, lazy imports included."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What the app may use of the core: it reads images and runs finished classifiers, without torch.
TORCH_FREE = (
    "artifact",
    "backbones.joined",
    "backbones.runtime",
    "backbones.storage",
    "config",
    "data.sources.glyphs",
    "deep_samples",
    "files",
    "genotype",
    "image_files",
    "image_kinds",
    "image_spec",
    "images",
    "layout",
    "onnx_runtime",
)
FORBIDDEN = {
    "lamanas_core": ("app", "workers", "cli", "benchmarks", "fastapi", "celery", "redis"),
    "app": ("torch", "torchvision", "workers", "cli", "benchmarks"),
    "lamanas_client": ("app", "workers", "cli", "lamanas_core", "torch", "fastapi", "celery", "redis"),
    "workers": ("cli", "benchmarks", "fastapi", "app.main", "app.routes", "app.http", "app.images", "app.inference"),
}
# The client reads folders by the rule that the service reads archives by: the one module without any dependency.
CLIENT_MAY = ("lamanas_core.layout",)
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
        and not (package == "lamanas_client" and any(within(name, allowed) for allowed in CLIENT_MAY))
    ]
    assert not crossed


def test_what_the_client_uses_of_the_core_needs_the_standard_library_only() -> None:
    for module in CLIENT_MAY:
        names = set(imported(ROOT / f"{module.replace('.', '/')}.py"))
        assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


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


# The way of an image's bytes through the app, each part importing those before it alone.
WAY = ("app.images.files", "app.images.forms", "app.images.pool", "app.inference", "app.services", "app.routes")
# Besides: what none of these parts may import.
BACKWARDS = {
    "app.store": ("app.http", "app.images", "app.inference", "app.services", "app.routes"),
    "app.images": ("app.http.auth", "app.inference", "app.services", "app.routes", "app.store"),
    "app.inference": ("app.http.auth", "app.services", "app.routes"),
    "app.http": ("app.routes",),
}


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def project_modules() -> dict[str, Path]:
    packages = ("app", "benchmarks", "cli", "lamanas_client", "lamanas_core", "workers")
    return {module_of(path): path for package in packages for path in (ROOT / package).rglob("*.py")}


def test_the_bytes_of_an_image_go_one_way_through_the_app() -> None:
    later = {part: WAY[place + 1 :] for place, part in enumerate(WAY)}
    for part, forbidden in (*later.items(), *BACKWARDS.items()):
        files = [path for name, path in project_modules().items() if within(name, part)]
        assert files, part
        crossed = [
            f"{path.relative_to(ROOT)} imports {name}"
            for path in files
            for name in imported(path)
            if any(within(name, one) for one in forbidden)
        ]
        assert not crossed


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: none inside functions, none that are for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from at_import(node)


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = project_modules()
    needs: dict[str, set[str]] = {}
    for name, path in modules.items():
        names: set[str] = set()
        for node in at_import(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = (f"{node.module}.{alias.name}" for alias in node.names)
                names |= {name if name in modules else node.module for name in full}
        needs[name] = {found for found in names if found in modules and found != name}
    while free := {name for name, needed in needs.items() if not needed & needs.keys()}:
        needs = {name: needed for name, needed in needs.items() if name not in free}
    assert not needs, f"in circles, or behind one: {', '.join(sorted(needs))}"
