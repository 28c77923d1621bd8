"""Where ``make install-dev`` puts the programs that others open ``model.onnx`` with."""

import os
import sys
from pathlib import Path

import pytest

# Beside the environment's own packages: they would hide its ONNX Runtime, and need no others but numpy.
FOLDER = Path(sys.prefix) / "runtimes"
ONNXRUNTIME_WEB = FOLDER / "node_modules" / "onnxruntime-web" / "dist" / "ort.node.min.mjs"


def installed(path: Path) -> Path:
    """``path``. Without it, the test is skipped, or fails in CI."""
    if path.exists():
        return path
    reason = f"{path} is missing: apt-get install nodejs npm; make --always-make .venv/installed-runtimes"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
