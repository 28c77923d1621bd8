"""Where ``make install-dev`` puts the programs that others open ``model.onnx`` with."""

import sys
from pathlib import Path

from tests.conftest import skip_unless_in_ci

# Beside the environment's own packages: they would hide its ONNX Runtime, and need no others but numpy.
FOLDER = Path(sys.prefix) / "runtimes"
ONNXRUNTIME_WEB = FOLDER / "node_modules" / "onnxruntime-web" / "dist" / "ort.node.min.mjs"


def installed(path: Path) -> Path:
    """``path``. Without it, the test is skipped, or fails in CI."""
    if path.exists():
        return path
    skip_unless_in_ci(f"{path} is missing: apt-get install nodejs npm; make --always-make .venv/installed-runtimes")
