"""Pages whose commands are run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, Service


def blocks(text: str, language: str = "sh") -> list[str]:
    """What stands in each fenced block of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(script: str, service: Service, folder: Path, patience_s: int = 300) -> str:
    """What the commands print, run in ``folder/work`` with the service's URL and TOKEN. Raises AssertionError."""
    # Makes each curl of the page fail where it was refused, without saying so on the page.
    (folder / ".curlrc").write_text("fail-with-body\nshow-error\nmax-time = 90\n")
    # What `make install` puts into .venv/bin, whatever is installed where the tests run.
    commands = folder / "bin"
    commands.mkdir()
    (commands / "lamanas").write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m cli.main "$@"\n')
    (commands / "lamanas").chmod(0o755)
    environment = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "URL": service.url,
        "TOKEN": service.token,
        "CURL_HOME": str(folder),
        "HOME": str(folder),
    }
    (folder / "work").mkdir()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder / "work",
        env=environment,
        capture_output=True,
        text=True,
        timeout=patience_s,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
