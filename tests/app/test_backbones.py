"""The app and backbones that do not ship with the package: it fetches them where it needs them."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from lamanas_core.artifact import Classifier
from lamanas_core.backbones.storage import own_file
from tests import own_backbones
from tests.app.playing import Worker, b64, classifier, png
from tests.app.test_episodes import create_episode
from tests.store.submitting import committed
from tests.store.test_backbones import card

VERSION = "b" * 16


@pytest.fixture
def episode(client: TestClient, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One whose model has a backbone of its own, on a machine that has not."""
    own_backbones.move_to(tmp_path / "first", monkeypatch)
    name = own_backbones.write(1, channels=1, size=8, side=8)
    worker.store.models.register(VERSION, b"", card(name))
    id: str = create_episode(client)["id"]
    artifact = classifier(("class 0", "class 1"), backbone=name)
    assert committed(worker.store.claims, worker.claim(id), {"step": 1, "losses": [0.5]}, {}, artifact)
    own_backbones.move_to(tmp_path / "second", monkeypatch)
    assert not own_file(name).exists()
    return id


def test_an_app_on_another_machine_predicts(client: TestClient, episode: str) -> None:
    answer = client.post("/predict", json={"episode_id": episode, "images": [b64(png(1))]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["label"] == "class 1"


def test_an_app_on_another_machine_joins_the_classifier_with_its_backbone(client: TestClient, episode: str) -> None:
    answer = client.get(f"/episodes/{episode}/model.onnx")
    assert answer.status_code == 200, answer.text
    assert Classifier.from_bytes(answer.content).classes == ("class 0", "class 1")


def test_a_backbone_that_is_nowhere_is_answered_with_503(settings: Settings, client: TestClient, episode: str) -> None:
    for file in (settings.objects_dir / "backbones").iterdir():
        file.unlink()
    with TestClient(create_app(settings), headers=client.headers) as other:
        asked = (
            other.post("/predict", json={"episode_id": episode, "images": [b64(png(1))]}),
            other.get(f"/episodes/{episode}/model.onnx"),
        )
    for answer in asked:
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
        assert "backbone" not in answer.text
