"""``lamanas models add`` on a running store: a trained model becomes a version; anything else is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from app.settings import Settings
from app.store.clients import SyncStore
from cli.main import main
from lamanas_core import meta_model
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.backbones.storage import MissingBackboneError
from lamanas_core.config import PRESETS
from lamanas_core.meta_model import MetaModel, read, shipped_kinds, write
from tests import own_backbones
from tests.learning.brief_training import SMALLEST
from workers.learner import Learner


@pytest.fixture
def trained(tmp_path: Path) -> MetaModel:
    """A model in ``tmp_path/run``, as written by a training run."""
    data = {"name": "glyphs", "train": {"classes": 1, "images": 4, "digests": ["0123456789abcdef"]}}
    card = {"config": SMALLEST.to_json(), "data": data, "metrics": {"validation_accuracy": 0.5}}
    model = MetaModel(initial_parameters(SMALLEST, 0), card)
    write(model, tmp_path / "run")
    return model


def test_a_trained_model_becomes_a_version_that_workers_can_use(
    installation: Settings,
    sync_store: SyncStore,
    trained: MetaModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Learner(installation, sync_store, threads=1).register_shipped()
    shipped = sync_store.models.active_versions()
    for _ in range(2):
        assert main(["models", "add", str(tmp_path / "run")]) == 0
        assert f"lamanas models activate {trained.version}" in capsys.readouterr().out
    record = sync_store.models.get(trained.version)
    assert record.card["metrics"] == {"validation_accuracy": 0.5}
    assert set(record.card["architecture"]) == {"normal", "reduction"}
    assert sync_store.models.active_versions() == shipped
    assert trained.version not in shipped.values()
    assert Learner(installation, sync_store, threads=1).model(trained.version).to_bytes() == trained.to_bytes()


def test_workers_on_other_machines_can_use_a_model_with_a_backbone_of_its_own(
    installation: Settings,
    sync_store: SyncStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as here:
        own_backbones.move_to(installation.data_dir, here)
        config = PRESETS["photos"]
        config = replace(config, network=replace(config.network, backbone=own_backbones.write(1)))
        model = MetaModel(initial_parameters(config, 0), {"config": config.to_json()})
        write(model, tmp_path / "run")
        assert main(["models", "add", str(tmp_path / "run")]) == 0
    own_backbones.move_to(tmp_path / "other", monkeypatch)
    with pytest.raises(MissingBackboneError, match="no backbone"):
        read(tmp_path / "run")
    assert Learner(installation, sync_store, threads=1).model(model.version).to_bytes() == model.to_bytes()


def test_a_model_of_each_shipped_kind_is_registered_and_active(
    installation: Settings, sync_store: SyncStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shipped_kinds()[0] == "drawings"
    models = {}
    for kind, config in (("drawings", SMALLEST), ("photos", PRESETS["rgb84"])):
        models[kind] = MetaModel(initial_parameters(config, 0), {"config": config.to_json()})
        write(models[kind], tmp_path / kind)
    monkeypatch.setattr(meta_model, "_SHIPPED", tmp_path)
    Learner(installation, sync_store, threads=1).register_shipped()
    assert sync_store.models.active_versions() == {kind: model.version for kind, model in models.items()}
    assert sync_store.models.get(models["photos"].version).kind == "photos"


def test_json_is_the_version_as_the_api_returns_it(
    installation: Settings, trained: MetaModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "add", str(tmp_path / "run"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"version", "kind", "active", "created_at", "card"}
    assert document["version"] == trained.version
    # A thousand digests would only make each answer larger; the card in the run's folder keeps them.
    assert document["card"]["data"]["train"] == {"classes": 1, "images": 4}
    assert read(tmp_path / "run").card["data"]["train"]["digests"] == ["0123456789abcdef"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.json", None, "model.json: `lamanas train` writes it to its --run folder when it finishes"),
        ("model.safetensors", None, "model.safetensors: `lamanas train` writes it"),
        ("model.json", b"{", "Expecting property name"),
        ("model.json", b"\xff", "can't decode"),
        ("model.json", b"[]", "not a meta-model"),
        ("model.json", b'{"config": {}}', "not a meta-model: 'network'"),
        ("model.safetensors", b"code", "not a meta-model"),
    ],
)
def test_a_folder_without_a_valid_model_is_refused_in_one_line(
    installation: Settings,
    sync_store: SyncStore,
    trained: MetaModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: bytes | None,
    message: str,
) -> None:
    (tmp_path / "run" / file).unlink()
    if content is not None:
        (tmp_path / "run" / file).write_bytes(content)
    assert main(["models", "add", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "run") in error
    assert message in error
    assert error.count("\n") == 1
    assert sync_store.models.active_versions() == {}


def test_weights_of_another_network_are_refused(
    installation: Settings, trained: MetaModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wider = replace(SMALLEST, network=replace(SMALLEST.network, channels=3))
    card = json.loads((tmp_path / "run" / "model.json").read_text()) | {"config": wider.to_json()}
    (tmp_path / "run" / "model.json").write_text(json.dumps(card))
    assert main(["models", "add", str(tmp_path / "run")]) == 1
    assert "the weights do not match the model card" in capsys.readouterr().err


def test_without_a_running_store_the_message_says_what_to_check(
    short_folder: Path,
    trained: MetaModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(short_folder))
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert main(["models", "add", str(tmp_path / "run")]) == 1
    assert "is `lamanas serve` running on this LAMANAS_DATA_DIR?" in capsys.readouterr().err
