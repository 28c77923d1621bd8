"""Colour images at 84 x 84: trained on a folder, registered, adapted and asked through the API."""

from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.store.sync_store import SyncStore
from lamanas_core.glyphs import colours, draw, glyph_class, png, write_folders
from lamanas_core.learning import training
from lamanas_core.learning.evaluation import evaluate
from lamanas_core.learning.meta_model import MetaModel
from lamanas_core.learning.training import TrainingConfig, train
from tests.conftest import Service, test_settings
from tests.end_to_end.client import adapt, predict


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MetaModel:
    """Preset ``rgb84`` after a step of warm-up and one of meta-training."""
    write_folders(tmp_path / "colours", classes=6, images=3, seed=0, colour=True)
    monkeypatch.setattr(training, "STEPS_PER_EPOCH", 1)
    monkeypatch.setattr(
        training,
        "evaluate",
        lambda model, classes, chosen, told: evaluate(model, classes, replace(chosen, episodes=1), told),
    )
    options = {"preset": "rgb84", "warm_up_epochs": 1, "meta_epochs": 1, "meta_batch": 1, "ways": 2, "shots": 1}
    config = TrainingConfig.from_request(options)
    assert not config.rotations  # a turned photo is the same thing
    return train(
        config,
        tmp_path / "colours",
        tmp_path / "run",
        device="cpu",
        on_progress=lambda progress: None,
        should_stop=lambda: False,
    )


def test_a_model_of_colour_images_is_served(model: MetaModel, service: Service, client: httpx.Client) -> None:
    rng = np.random.default_rng(1)
    strokes = glyph_class(rng)  # the same strokes in two inks: without colour nothing tells them apart
    inks = {"red": np.array([150.0, 0.0, 0.0]), "blue": np.array([0.0, 0.0, 150.0])}
    support = [(name, png(draw(strokes, rng, *colours(ink, rng)))) for name, ink in inks.items() for _ in range(2)]
    store = SyncStore.open(test_settings(service.data_dir))
    before = store.active_version()
    assert before is not None
    try:
        store.register_model(model.version, model.to_bytes(), model.card)
        assert client.post(f"/models/{model.version}/activate").status_code == 200
        episode = adapt(client, support)
    finally:
        client.post(f"/models/{before}/activate")
        store.close()
    assert episode["model_version"] == model.version
    predictions = predict(client, episode["id"], [file for _, file in support])
    assert [prediction["label"] for prediction in predictions] == [name for name, _ in support]
