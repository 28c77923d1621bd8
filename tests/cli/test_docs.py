"""The examples on the pages about the client and the commands run, and print the output shown there."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from lamanas_core.data.sources.glyphs import write_folders
from tests.conftest import ROOT, Service
from tests.pages import blocks, run

COMMANDS = (ROOT / "docs" / "command-line.md").read_text()
CLIENT = (ROOT / "docs" / "python-client.md").read_text()


def test_the_commands_of_the_page_run_in_order(service: Service, tmp_path: Path) -> None:
    symbols = service.data_dir / "datasets" / "symbols"
    if not symbols.exists():
        write_folders(symbols, classes=8, images=4, seed=3)
    printed = run("\n".join(blocks(COMMANDS)), service, tmp_path)
    for number in range(5):
        assert re.search(rf"^asked/glyph00{number}\.png +glyph00{number} ", printed, re.MULTILINE), printed
    assert (tmp_path / "work" / "model.onnx").stat().st_size > 1000
    assert "complete" in (tmp_path / "work" / "lamanas.bash").read_text()


def test_every_example_of_the_page_prints_the_output_shown(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("\n".join(blocks(CLIENT)), service, tmp_path)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("URL", service.url)
    monkeypatch.setenv("TOKEN", service.token)
    names: dict[str, Any] = {}
    cells = re.findall(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", CLIENT, re.MULTILINE | re.DOTALL)
    assert cells
    for cell, promised in cells:
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile(cell, "docs/python-client.md", "exec"), names)  # noqa: S102 (a page of this repository)
        if promised:
            assert printed.getvalue() == promised, cell
