"""Colour images at 84 x 84: trained on a folder, added to a running service, adapted and asked through the API."""

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from cli.main import main
from lamanas_core.data.sources.glyphs import colours, draw, glyph_class, png, write_folders
from lamanas_core.train import loop as training
from tests.conftest import Service
from tests.end_to_end.client import adapt, predict
from tests.learning.brief_training import brief_recipe


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ``lamanas train`` leaves of preset ``rgb84`` after a step of warm-up and one of meta-training."""
    write_folders(tmp_path / "colours", classes=6, images=3, seed=0, colour=True)
    monkeypatch.setattr(training, "recipe_for", lambda preset: brief_recipe(steps=1))
    few = ["--warm-up-epochs", "1", "--meta-epochs", "1", "--meta-batch", "1", "--ways", "2", "--shots", "1"]
    data, folder = tmp_path / "colours", tmp_path / "run"
    assert main(["train", "--data", str(data), "--run", str(folder), "--preset", "rgb84", *few]) == 0
    return folder


def test_a_model_of_colour_images_is_served(
    run: Path,
    service: Service,
    client: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(1)
    strokes = glyph_class(rng)  # the same strokes in two inks: without colour nothing tells them apart
    inks = {"red": np.array([150.0, 0.0, 0.0]), "blue": np.array([0.0, 0.0, 150.0])}
    support = [(name, png(draw(strokes, rng, *colours(ink, rng)))) for name, ink in inks.items() for _ in range(2)]
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(service.data_dir))
    monkeypatch.delenv("REDIS_URL", raising=False)
    capsys.readouterr()
    assert main(["models", "add", str(run), "--json"]) == 0
    added = json.loads(capsys.readouterr().out)
    assert not added["card"]["training"]["rotations"]  # a turned photo is the same thing
    active = {model["kind"]: model["version"] for model in client.get("/models").json()["models"] if model["active"]}
    try:
        assert client.post(f"/models/{added['version']}/activate").status_code == 200
        episode = adapt(client, support, model="photos")
        assert adapt(client, support)["model_version"] == active["drawings"]  # for auto, strokes are drawings
    finally:
        client.post(f"/models/{active['photos']}/activate")
    assert episode["model_version"] == added["version"] not in active.values()
    predictions = predict(client, episode["id"], [file for _, file in support])
    assert [prediction["label"] for prediction in predictions] == [name for name, _ in support]
