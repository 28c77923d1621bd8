"""Upgrades and roll backs: this release goes on with what an earlier one has stored, and that one with what this one
has, or it refuses to."""

import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.store.installation import SCHEMA
from tests.conftest import ROOT, serve_process, until_serving
from tests.e2e.journey import pngs
from tests.waiting import PATIENCE_S

# As long as no release is published, commits stand for them: an early one whose form of what is stored has this number
# (SCHEMA in app/store/installation.py), and from form 2 on one that reads records to which a later one has added
# something. When the number grows, add a commit.
OF_FORM = {1: "47e724f", 2: "271a47d"}
IMAGES = pngs(3, 3)
FILES = [("images", ("x.png", image)) for each in IMAGES for image in each[:2]]
NO_LABEL = [("unlabelled", ("x.png", each[2])) for each in IMAGES]
LABELS = {"labels": [str(number) for number in range(3) for _ in range(2)]}
ASKED = [("images", ("x.png", each[2])) for each in IMAGES]


@pytest.fixture
def release(tmp_path: Path) -> Callable[[int], Path]:
    """The folder of a release with this form of what is stored."""

    def folder(form: int) -> Path:
        shallow = subprocess.run(
            ["git", "rev-parse", "--is-shallow-repository"], cwd=ROOT, capture_output=True, text=True
        )
        if shallow.stdout != "false\n":
            pytest.skip(f"without the history, there is no release before: {shallow.stderr or 'the clone is shallow'}")
        command = ["git", "archive", "--format=tar", OF_FORM[form]]
        archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
            files.extractall(tmp_path / str(form), filter="data")
        return tmp_path / str(form)

    return folder


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


def submit(client: httpx.Client, files: Sequence[tuple[str, tuple[str, bytes]]] = FILES) -> str:
    """A new episode."""
    answer = client.post("/episodes", files=files, data=LABELS)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def told(client: httpx.Client, id: str) -> dict[str, Any]:
    """What the service answers about an episode and its predictions, once it is ready."""
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


def test_releases_go_on_with_what_others_have_stored_or_refuse_to(
    release: Callable[[int], Path], short_folder: Path
) -> None:
    """From the release with the form before to this one, back to an early one with the same form, and here again."""
    code_before, code_early = release(SCHEMA - 1), release(SCHEMA)
    with serving(short_folder, code_before) as before:
        first = submit(before)
        by_before = told(before, first)
        waiting = submit(before)
    with serving(short_folder, ROOT) as new:
        assert told(new, first).items() >= by_before.items()
        by_new = {id: told(new, id) for id in (first, waiting)}
        run_of_new = ended_run(new)
        unfinished = submit(new, FILES + NO_LABEL)
    refused = serve_process(short_folder, code_before)
    try:
        output, _ = refused.communicate(timeout=PATIENCE_S)
    finally:
        refused.kill()
    assert refused.returncode != 0
    assert f"a later release has used this Redis (schema {SCHEMA}" in output
    with serving(short_folder, code_early) as early:
        for id, by_it in by_new.items():
            by_early = told(early, id)
            assert by_early.items() <= by_it.items()
            assert by_early["predicted"] == by_it["predicted"]
        by_early = told(early, unfinished)
        assert by_early["unlabelled"] == len(NO_LABEL)
        run_of_early = ended_run(early)
        assert early.get("/train").json()["trainings"] == [run_of_early, run_of_new]
        unfinished_by_early = submit(early, FILES + NO_LABEL)
    with serving(short_folder, ROOT) as new:
        assert {id: told(new, id) for id in by_new} == by_new
        assert told(new, unfinished).items() >= by_early.items()
        assert told(new, unfinished_by_early)["state"] == "ready"
        assert new.get("/train").json()["trainings"] == [run_of_early, run_of_new]
