"""``lamanas backup`` of a running service, restored into another one, gives the same answers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import ROOT, Service, serve_process, until_serving
from tests.e2e.journey import pngs
from tests.waiting import PATIENCE_S


def lamanas(data_dir: Path, *arguments: str) -> dict[str, Any]:
    """What the command prints as JSON."""
    command = [sys.executable, "-m", "cli.main", *arguments, "--json"]
    environment = {"LAMANAS_DATA_DIR": str(data_dir), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_restored_service_gives_the_same_answers(service: Service, short_folder: Path, tmp_path: Path) -> None:
    images = pngs(3, 3)
    files = [("images", ("x.png", image)) for each in images for image in each[:2]]
    labels = {"labels": [str(number) for number in range(3) for _ in range(2)]}
    wait = {"Prefer": "wait=60"}
    made = httpx.post(f"{service.url}/episodes", headers=service.headers | wait, files=files, data=labels, timeout=90)
    id = made.json()["id"]
    asked = [("images", ("x.png", each[2])) for each in images]

    def answers(ask: Callable[..., httpx.Response]) -> list[object]:
        predicted = ask("POST", "predict", files=asked, data={"episode_id": id})
        episode = ask("GET", f"episodes/{id}")
        models = ask("GET", "models")
        return [predicted.json()["predictions"], episode.json(), models.json()]

    def asker(url: str) -> Callable[..., httpx.Response]:
        def ask(method: str, path: str, **options: Any) -> httpx.Response:
            answer = httpx.request(method, f"{url}/{path}", headers=service.headers, timeout=90, **options)
            assert answer.status_code == 200, answer.text
            return answer

        return ask

    before = answers(asker(service.url))
    saved = lamanas(service.data_dir, "backup", str(tmp_path / "backup.zip"))
    assert lamanas(short_folder, "restore", str(tmp_path / "backup.zip")) == {
        name: saved[name] for name in ("keys", "objects")
    }
    shutil.copy(service.data_dir / "admin-token", short_folder)
    process = serve_process(short_folder)
    try:
        assert answers(asker(until_serving(process, short_folder).url)) == before
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
