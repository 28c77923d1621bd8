"""Where a model comes from: what its card says of the software and the day."""

import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def provenance() -> dict[str, str | None]:
    """Day (UTC), versions, and the commit of the source tree that runs, None where it is not one."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "lamanas": _installed(),
        "torch": torch.__version__,
        "commit": commit(Path(__file__).parents[2]),
    }


def _installed() -> str | None:
    try:
        return version("lamanas")
    except PackageNotFoundError:
        return None


def commit(folder: Path) -> str | None:
    """The commit that ``folder`` has checked out, with ``+`` where files differ from it; None without git."""
    if not (folder / ".git").exists():
        return None
    try:
        head, changed = (
            subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10, check=True).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.strip() + ("+" if changed.strip() else "")
