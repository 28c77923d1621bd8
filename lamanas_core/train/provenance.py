"""Provenance of a model, for its card: the date and the versions of the software."""

import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def provenance() -> dict[str, str | None]:
    """The date (UTC), the versions of lamanas (None if it is not installed) and torch, and the source tree's commit.

    The commit is None if the code does not run from a git checkout.
    """
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "lamanas": _installed_version(),
        "torch": torch.__version__,
        "commit": commit(Path(__file__).parents[2]),
    }


def _installed_version() -> str | None:
    try:
        return version("lamanas")
    except PackageNotFoundError:
        return None


def commit(folder: Path) -> str | None:
    """The commit checked out in ``folder``, with a "+" if tracked files differ from it.

    None if ``folder`` is not a checkout or git fails.
    """
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
