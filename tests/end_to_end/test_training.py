"""A meta-training run on a folder of images, from the request to an episode adapted from its model."""

from typing import Any

import httpx
import numpy as np

from lamanas_core.data.sources.glyphs import draw, glyph_class, png, write_folders
from tests.conftest import Service
from tests.end_to_end.client import adapt, events, predict


def support(seed: int) -> list[tuple[str, bytes]]:
    """Two drawings of each of three characters that the training has not seen."""
    rng = np.random.default_rng(seed)
    characters = [(name, glyph_class(rng)) for name in ("alpha", "beta", "gamma")]
    return [(name, png(draw(strokes, rng))) for name, strokes in characters for _ in range(2)]


def models(client: httpx.Client) -> dict[str, dict[str, Any]]:
    return {model["version"]: model for model in client.get("/models").json()["models"]}


def active(client: httpx.Client) -> list[str]:
    """The active versions for drawings: always one."""
    return [version for version, model in models(client).items() if model["active"] and model["kind"] == "drawings"]


def activate(client: httpx.Client, version: str) -> None:
    answer = client.post(f"/models/{version}/activate")
    assert answer.status_code == 200, answer.text
    assert active(client) == [version]


def test_a_run_on_a_folder_of_images_makes_a_model_that_can_be_switched_to_and_back(
    service: Service, client: httpx.Client
) -> None:
    write_folders(service.data_dir / "datasets" / "glyphs", classes=8, images=4, seed=3)
    [before] = active(client)
    old = adapt(client, support(seed=1))
    asked = {"dataset": "glyphs", "preset": "tiny", "meta_epochs": 1, "ways": 3, "shots": 1, "seed": 5}

    accepted = client.post("/train", json=asked)
    assert accepted.status_code == 202, accepted.text
    *changes, (name, run) = list(events(client, f"{accepted.headers['location']}/events"))

    assert (name, run["state"], run["error"]) == ("finished", "finished", None)
    assert {change for change, _ in changes} == {"progress"}
    assert run["epoch"] == run["epochs"] == 3
    assert 0 <= run["validation_accuracy"] <= 1
    assert client.get(accepted.headers["location"]).json() == run
    version = run["model_version"]
    assert version not in (None, before)
    card = models(client)[version]["card"]
    assert card["config"]["preset"] == "tiny"
    assert {name: card["training"][name] for name in ("meta_epochs", "ways", "shots", "seed")} == {
        name: asked[name] for name in ("meta_epochs", "ways", "shots", "seed")
    }
    assert card["data"]["train"]["classes"] == 4
    for told in (card, models(client)[before]["card"]):
        names = set(told["config"]["network"]["operations"])
        edges = [edge for node in told["architecture"]["normal"] for edge in node["inputs"]]
        assert len(edges) == sum(range(2, 2 + told["config"]["network"]["nodes"]))
        assert all({operation["name"] for operation in edge["operations"]} == names for edge in edges)
    assert card["metrics"]["validation_accuracy"] == run["validation_accuracy"]
    # Registered, but nothing of it is used before somebody says so.
    assert active(client) == [before]

    try:
        activate(client, version)
        new = adapt(client, support(seed=1))
    finally:
        activate(client, before)
    assert new["model_version"] == version
    files = [file for _, file in support(seed=1)]
    assert {prediction["label"] for prediction in predict(client, new["id"], files)} <= {"alpha", "beta", "gamma"}
    assert new["parameters"]["total"] < old["parameters"]["total"]

    kept = client.get(f"/episodes/{old['id']}").json()
    assert kept["model_version"] == before
    assert adapt(client, support(seed=2))["model_version"] == before
