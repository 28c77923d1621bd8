"""A training run whose worker is killed repeatedly."""

import json

import httpx

from app.store import keys
from lamanas_core.data.sources.glyphs import write_folders
from tests.chaos.installation import Installation
from tests.chaos.storm import Storm
from tests.chaos.waiting import until

CHECKPOINTED = 5  # epochs
OPTIONS = {"dataset": "glyphs", "preset": "tiny", "meta_epochs": 3, "ways": 3, "shots": 1, "seed": 5}


def kill_training(installation: Installation, storm: Storm) -> None:
    """Kills the worker of a run before its first checkpoint, after it and near the end.

    The run must resume each time and register exactly one version, the same as a run without faults.
    """
    write_folders(installation.settings.datasets_dir / "glyphs", classes=8, images=4, seed=3)
    with installation.client() as client:
        before = _versions(client)
        id = _start(client)
        run = f"/train/{id}"
        for epoch in (1, CHECKPOINTED + 1, CHECKPOINTED + 3):
            until(lambda epoch=epoch: client.get(run).json()["epoch"] >= epoch, f"epoch {epoch}")  # type: ignore[misc]
            storm.kill(installation.trainer, f"in epoch {epoch + 1} of a training run")
            resumed = _next_epoch(installation, id)
            least = 1 if epoch < CHECKPOINTED else CHECKPOINTED + 1
            assert resumed >= least, f"it resumed in epoch {resumed}, not after its checkpoint"
            storm.log(f"the run resumed in epoch {resumed}")
        until(lambda: client.get(run).json()["state"] not in ("queued", "running"), "the run ends")
        ended = client.get(run).json()
        assert ended["state"] == "finished", ended["error"]
        new = _versions(client) - before
        assert new == {ended["model_version"]}, f"registered {new}"
        again = f"/train/{_start(client)}"
        until(lambda: client.get(again).json()["state"] not in ("queued", "running"), "the run without faults ends")
        expected = client.get(again).json()["model_version"]
        assert expected == ended["model_version"], f"without faults, it ends with {expected}"
        assert _versions(client) - before == new
    storm.log(f"the run registered one version, {ended['model_version']}, the same as a run without faults")


def _start(client: httpx.Client) -> str:
    answer = client.post("/train", json=OPTIONS)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _next_epoch(installation: Installation, id: str) -> int:
    """The first epoch that the next worker reports. (The reported time left makes each report differ from the last.)"""
    record = keys.record("training", id)
    before = installation.redis_client.hget(record, "progress")
    until(lambda: installation.redis_client.hget(record, "progress") != before, "another worker resumes the run")
    until(lambda: json.loads(installation.redis_client.hget(record, "progress")).get("epoch"), "its first epoch")
    return int(json.loads(installation.redis_client.hget(record, "progress"))["epoch"])


def _versions(client: httpx.Client) -> set[str]:
    return {model["version"] for model in client.get("/models").json()["models"]}
