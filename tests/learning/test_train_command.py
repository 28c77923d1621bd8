"""The command line of ``lamanas train``."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cli.main import main
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.config import PAPER, PRESETS
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.image_spec import ImageSpec
from lamanas_core.meta.gradient import MetaGradient
from lamanas_core.meta_model import MetaModel, read
from lamanas_core.search.stems import RESNET_NAMES
from lamanas_core.train import loop as training
from lamanas_core.train.run_folder import read_curves
from tests.learning.brief_training import SMALLEST, brief_recipe

BRIEF = ("--preset", "tiny", "--warm-up-epochs", "0", "--meta-epochs", "2", "--ways", "2", "--shots", "1")
Train = Callable[..., int]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """``lamanas train`` on a few glyphs, with a checkpoint after each epoch and without any actual training."""
    write_folders(tmp_path / "data", classes=8, images=3, seed=0)
    monkeypatch.setitem(PRESETS, "tiny", SMALLEST)
    monkeypatch.setattr(training, "recipe_for", lambda preset: brief_recipe())
    monkeypatch.setattr(training, "_epoch", lambda *arguments: 0.0)
    monkeypatch.setattr(training, "_validate", lambda *arguments: 0.5)
    monkeypatch.setattr(training, "calibrated", lambda model, *arguments: model)
    return lambda *options: main(["train", "--data", f"{tmp_path}/data", "--run", f"{tmp_path}/run", *BRIEF, *options])


def stop(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_resume_continues_an_interrupted_run(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("cli.show.print_bar", stop)
        assert train() == 130
    assert not (tmp_path / "run" / "model.json").exists()
    so_far = training.model_so_far(tmp_path / "run")
    assert so_far.card.keys() == {"config"}
    assert so_far.config == SMALLEST
    assert train("--resume") == 0
    assert training.model_so_far(tmp_path / "run").version == read(tmp_path / "run").version
    assert [row["epoch"] for row in read_curves(tmp_path / "run")] == [1, 2]
    assert json.loads(capsys.readouterr().out)["version"] == read(tmp_path / "run").version


def test_how_the_data_set_was_read_is_told_and_recorded(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train() == 0
    assert "note" not in capsys.readouterr().err
    assert read(tmp_path / "run").card["data"]["notes"] == []
    (tmp_path / "data" / "notes.txt").write_bytes(b"")
    shutil.rmtree(tmp_path / "run")
    told: list[tuple[str, ...]] = []
    original = training.train

    def noting(*arguments: Any, **options: Any) -> MetaModel:
        def noted(progress: training.TrainingProgress) -> None:
            told.append(progress.notes)
            options["on_progress"](progress)

        return original(*arguments, **options | {"on_progress": noted})

    monkeypatch.setattr(training, "train", noting)
    assert train() == 0
    note = "24 added, 1 skipped: notes.txt"
    assert capsys.readouterr().err.splitlines()[0] == f"note: {note}"
    assert read(tmp_path / "run").card["data"]["notes"] == [note]
    assert set(told) == {(note,)}


def test_resume_is_refused_without_a_checkpoint(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--resume") == 1
    assert f"{tmp_path}/run has no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert train() == 0


def test_a_training_that_diverges_ends_with_one_line(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nan = MetaGradient({"theta.a": torch.tensor(torch.nan)}, 1.0)
    monkeypatch.setattr(training, "_epoch", lambda source, learner, run, *_: training._finite(run, [nan] * 10))
    assert train() == 1
    error = capsys.readouterr().err
    assert error.startswith("lamanas train: the training has diverged: the gradients of 10 tasks in a row")
    assert error.count("\n") == 1


@pytest.fixture
def resnet(monkeypatch: pytest.MonkeyPatch, train: Train) -> dict[str, Tensor]:
    """The tensors of a pretrained ResNet-18 for the preset ``tiny``, which has a ResNet-18 stem here."""
    network = replace(SMALLEST.network, stem="resnet18")
    config = replace(SMALLEST, network=network)
    monkeypatch.setitem(PRESETS, "tiny", config)
    theta = initial_parameters(config, 0).theta
    return {name: torch.rand(theta[f"stem.{ours}"].shape) for name, ours in RESNET_NAMES.items()}


def test_a_training_starts_from_the_layers_of_a_pretrained_resnet(
    train: Train, resnet: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(resnet | {"fc.weight": torch.zeros(2, 2)}, tmp_path / "resnet18.safetensors")
    assert train("--pretrained", str(tmp_path / "resnet18.safetensors")) == 0
    model = read(tmp_path / "run")
    for name, ours in RESNET_NAMES.items():
        assert torch.equal(model.parameters.theta[f"stem.{ours}"], resnet[name])
    assert model.card["training"]["pretrained"] == str(tmp_path / "resnet18.safetensors")


def test_an_unusable_pretrained_file_is_reported_in_one_line(
    train: Train,
    resnet: dict[str, Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "resnet18.safetensors"

    def error_of(*more: str) -> str:
        assert train("--pretrained", str(file), *more) == 1
        error = capsys.readouterr().err
        assert error.startswith("lamanas train: ")
        assert error.count("\n") == 1
        return error

    assert f"No such file or directory: {file}" in error_of()
    file.write_bytes(b"no tensors in here")
    assert f"{file} is not a safetensors file" in error_of()
    save_file({"bn1.bias": resnet["bn1.bias"]}, file)
    assert f"{file} has no tensor conv1.weight of shape (64, 3, 7, 7)" in error_of()
    assert "start and pretrained are mutually exclusive" in error_of("--start", "shipped")
    save_file(resnet, file)
    monkeypatch.setitem(PRESETS, "tiny", SMALLEST)
    assert "this network has no ResNet-18 stem" in error_of()


def test_a_linear_head_is_trained_for_the_ways_of_the_command(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an actual training, validated on a split of more classes than the head has."""
    write_folders(tmp_path / "data" / "more", classes=12, images=3, seed=1)
    network = replace(PAPER.network, image=ImageSpec(size=8), channels=2, nodes=1, cells=("normal",))
    config = replace(PAPER, preset="tiny", network=network, task_learner=replace(PAPER.task_learner, steps=1, hidden=2))
    assert config.network.ways == 20
    monkeypatch.undo()  # the training is not replaced
    monkeypatch.setitem(PRESETS, "tiny", config)
    monkeypatch.setattr(training, "recipe_for", lambda preset: brief_recipe())
    assert train("--meta-epochs", "1") == 0
    model = read(tmp_path / "run")
    assert model.config.network.ways == model.learner.head.classes() == len(model.parameters.theta["head.weight"]) == 2
