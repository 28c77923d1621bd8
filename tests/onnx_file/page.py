"""The programs of docs/onnx.md, as they stand there."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from tests.conftest import ROOT
from tests.onnx_file.runtimes import ONNXRUNTIME_WEB, installed
from tests.pages import blocks

PAGE = (ROOT / "docs" / "onnx.md").read_text()
PYTHON = blocks(PAGE, "python")
JAVASCRIPT = blocks(PAGE, "js")
# Reads a list of tasks and writes a list of answers, each as JSON.
NODE = """
import fs from "node:fs";
const answers = [];
for (const task of JSON.parse(fs.readFileSync(process.argv[2], "utf8"))) answers.push(await answer(task));
fs.writeFileSync(process.argv[3], JSON.stringify(answers));
"""


def classified_in_python(model: Path, files: Sequence[Path]) -> list[tuple[str, float, bool]]:
    """Label, probability and ``known`` of each file, as the page's program prints them."""
    program = model.parent / "program.py"
    program.write_text("\n".join(PYTHON))
    done = subprocess.run(
        [sys.executable, program, *files], cwd=model.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [str(file) for file in files]
    return [(label, float(probability), known == "True") for _, label, probability, known in rows]


def classified_in_node(model: Path, files: Sequence[Path]) -> list[dict[str, Any]]:
    """What the page's ``classify`` returns for each file, with the pixels that Pillow decodes."""
    web = installed(ONNXRUNTIME_WEB)
    code = f"""
        import * as ort from {json.dumps(web.as_uri())};
        const model = await open(new Uint8Array(fs.readFileSync("{model.name}")));
        const answer = (task) => classify(model, opened(task));
    """
    return run_in_node(model.parent, code, [decoded(file, model.parent) for file in files])


def prepared_in_node(function: str, size: int, files: Sequence[Path], folder: Path) -> list[list[int]]:
    """The arrays that ``drawing`` or ``photo`` of the page make of the pixels that Pillow decodes."""
    answer = f"const answer = (task) => [...{function}(opened(task), {size})];"
    return run_in_node(folder, answer, [decoded(file, folder) for file in files])


def decoded(file: Path, folder: Path) -> dict[str, Any]:
    """A task with the pixels of a file, upright, as a browser has them: RGBA."""
    image = ImageOps.exif_transpose(Image.open(file)).convert("RGBA")
    raw = folder / f"{file.name}.rgba"
    raw.write_bytes(image.tobytes())
    return {"path": str(raw), "width": image.width, "height": image.height}


def run_in_node(folder: Path, code: str, tasks: Sequence[dict[str, Any]]) -> list[Any]:
    """What ``answer``, which ``code`` defines, returns for each task."""
    opened = "const opened = (task) => ({ ...task, data: new Uint8ClampedArray(fs.readFileSync(task.path)) });"
    (folder / "program.mjs").write_text("\n".join([*JAVASCRIPT, opened, code, NODE]))
    (folder / "tasks.json").write_text(json.dumps(tasks))
    node = installed(Path(shutil.which("node") or "/usr/bin/node"))
    command = [str(node), "program.mjs", "tasks.json", "answers.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads((folder / "answers.json").read_text())
    return answers
