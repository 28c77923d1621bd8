"""An upgrade and a roll back: this release goes on with what the one before has stored, and that one with what this one
has."""

import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT, serve_process, until_serving
from tests.e2e.journey import pngs
from tests.waiting import PATIENCE_S

# The release before this one: its tag, or, as long as none is published, the first commit that numbers the form of what
# is stored (SCHEMA in app/store/installation.py).
BEFORE = "47e724f"
IMAGES = pngs(3, 3)
FILES = [("images", ("x.png", image)) for each in IMAGES for image in each[:2]]
LABELS = {"labels": [str(number) for number in range(3) for _ in range(2)]}
ASKED = [("images", ("x.png", each[2])) for each in IMAGES]


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The folder of the release before."""
    shallow = subprocess.run(["git", "rev-parse", "--is-shallow-repository"], cwd=ROOT, capture_output=True, text=True)
    if shallow.stdout != "false\n":
        pytest.skip(f"without the history, there is no release before: {shallow.stderr or 'the clone is shallow'}")
    archive = subprocess.run(["git", "archive", "--format=tar", BEFORE], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(tmp_path / "before", filter="data")
    return tmp_path / "before"


@contextmanager
def serving(data_dir: Path, code: Path) -> Iterator[httpx.Client]:
    process = serve_process(data_dir, code, LAMANAS_APP_PROCESSES="1")
    try:
        service = until_serving(process, data_dir)
        with httpx.Client(base_url=service.url, headers=service.headers, timeout=PATIENCE_S) as client:
            yield client
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def submit(client: httpx.Client) -> str:
    """A new episode."""
    answer = client.post("/episodes", files=FILES, data=LABELS)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def told(client: httpx.Client, id: str) -> dict[str, Any]:
    """All that it tells of an episode, once that is ready."""
    predicted = client.post("/predict?wait=60", files=ASKED, data={"episode_id": id})
    assert predicted.status_code == 200, predicted.text
    found: dict[str, Any] = {"predicted": predicted.json()["predictions"]}
    for path in (f"/episodes/{id}", f"/episodes/{id}/support"):
        found |= client.get(path).json()
    return found


def ended_run(client: httpx.Client) -> dict[str, Any]:
    """A training run on a data set that there is not, which its worker has found out."""
    id = client.post("/train", json={"dataset": "missing"}).json()["id"]
    client.get(f"/train/{id}/events")  # until it ends
    run: dict[str, Any] = client.get(f"/train/{id}").json()
    assert run["state"] == "failed"
    return run


def test_each_of_two_releases_goes_on_with_what_the_other_has_stored(before: Path, short_folder: Path) -> None:
    with serving(short_folder, before) as old:
        first = submit(old)
        by_old = told(old, first)
        run_of_old = ended_run(old)
        waiting = submit(old)
    with serving(short_folder, ROOT) as new:
        assert told(new, first).items() >= by_old.items()
        by_new = told(new, waiting)
        run_of_new = ended_run(new)
        assert new.get("/train").json()["trainings"] == [run_of_new, run_of_old]
        unfinished = submit(new)
    with serving(short_folder, before) as old:
        assert told(old, first) == by_old
        assert told(old, waiting).items() <= by_new.items()
        assert told(old, unfinished)["state"] == "ready"
        assert old.get("/train").json()["trainings"] == [run_of_new, run_of_old]
