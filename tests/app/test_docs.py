"""docs/http-api.md: its commands succeed in their order, and it lists every problem type."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.http import problems
from app.settings import Settings
from app.store import keys
from tests.app.playing import Worker, png
from tests.conftest import ROOT, PrivateRedis
from tests.waiting import changes

PAGE = (ROOT / "docs" / "http-api.md").read_text()


@pytest.fixture
def busy_worker(worker: Worker, server: PrivateRedis) -> Iterator[None]:
    """Adapts to waiting episodes until the test ends."""
    stop = threading.Event()
    queue = keys.queued("episode")

    def work() -> None:
        with changes(server.client, keys.CHANGES) as changed:
            while not stop.is_set():
                changed.until(lambda: stop.is_set() or bool(server.client.zcard(queue)), "work or the end")
                ids: Any = server.client.zrange(queue, 0, -1)
                for id in ids:
                    worker.adapt(id.decode())

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    server.client.publish(keys.CHANGES, "the end")
    thread.join()


def test_every_command_of_the_page_succeeds(
    live: str, settings: Settings, busy_worker: None, token: Callable[..., str], tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.fail("curl is needed to run the page's examples")
    for name, kind in (("alpha/1", 0), ("alpha/2", 0), ("beta/1", 1), ("beta/2", 1), ("query", 1)):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(kind))
    # Makes each curl command of the page fail after an error response, without options on the page.
    (tmp_path / ".curlrc").write_text("fail-with-body\nshow-error\nmax-time = 60\n")
    script = "set -euo pipefail\n" + "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    environment = {"PATH": os.environ["PATH"], "URL": live, "TOKEN": token("admin"), "CURL_HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"predictions":[{"label":"beta"') == 3
    assert "event: ready" in done.stdout


def test_the_page_lists_every_problem_type_with_its_status() -> None:
    rows = dict(re.findall(r"^\| (\d{3}[\d, ]*) \| (.*) \|$", PAGE, re.MULTILINE))
    documented = {
        (status, name)
        for row, names in rows.items()
        for status in row.split(", ")
        for name in re.findall(r"`([a-z0-9-]+)`", names)
    }
    known = {kind for kind in vars(problems).values() if isinstance(kind, problems.ProblemType)}
    assert {(str(kind.status), kind.name) for kind in known} <= documented
