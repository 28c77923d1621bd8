"""The files in a run's folder, and the precision of training."""

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lamanas_core import devices
from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.config import TrainingConfig
from lamanas_core.data.folders import load_dataset
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.data.splits import DatasetError
from lamanas_core.image_spec import ImageSpec
from lamanas_core.meta.maml import maml
from lamanas_core.meta.warm_up import warm_up_gradient
from lamanas_core.recipe import Recipe, WarmUp
from lamanas_core.train import checkpoint, provenance
from lamanas_core.train.distributed import Ranks
from lamanas_core.train.loop import _check_same
from lamanas_core.train.run_folder import Curves, keep_phi, kept_phi, read_curves, read_split, write_split
from lamanas_core.train.tasks import TaskSource
from tests.conftest import ROOT
from tests.learning.helpers import MINIATURE, float64_episode


def test_the_recorded_split_is_kept(tmp_path: Path) -> None:
    data, folder = tmp_path / "glyphs", tmp_path / "run"
    write_folders(data, classes=8, images=2, seed=0)
    first = load_dataset(data, ImageSpec(size=8), seed=0)
    assert read_split(folder) is None
    write_split(folder, data, first)
    write_folders(data / "more", classes=3, images=2, seed=1)
    known = read_split(folder)
    again = load_dataset(data, ImageSpec(size=8), seed=1, split=known)
    assert {part: classes.names for part, classes in again.items()} == {p: c.names for p, c in first.items()}
    assert read_split(folder, data=data) == known
    assert read_split(folder, data=tmp_path / "others") is None
    (data / "glyph000").rename(data / "renamed")
    with pytest.raises(DatasetError, match=r"1 class folders of the split are missing, e\.g\. glyph000"):
        load_dataset(data, ImageSpec(size=8), split=known)


def test_curves_continue_from_the_checkpoint(tmp_path: Path) -> None:
    first = Curves(tmp_path, 0)
    for epoch in (1, 2, 3):
        first.add({"epoch": epoch, "loss": 1.0 / epoch})
    with (tmp_path / "curves.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')  # truncated by a kill
    Curves(tmp_path, 2).add({"epoch": 3, "loss": 7.0})
    assert read_curves(tmp_path) == [
        {"epoch": 1, "loss": 1.0},
        {"epoch": 2, "loss": 0.5},
        {"epoch": 3, "loss": 7.0},
    ]


def test_tensorboard_reads_each_epoch_once_after_an_interruption(tmp_path: Path) -> None:
    board = tmp_path / "tensorboard"
    first = Curves(tmp_path, 0)
    for epoch in (1, 2, 3):
        first.add({"epoch": epoch, "stage": "meta", "loss": 1 / epoch, "validation_accuracy": None})
    first.close()
    # TensorBoard reads files in the order of their names, which start with the second of creation: the same one here.
    next(board.iterdir()).rename(board / "events.out.tfevents.0")
    second = Curves(tmp_path, 2)
    second.add({"epoch": 3, "stage": "meta", "loss": 7.0, "validation_accuracy": 0.5})
    second.close()
    read = EventAccumulator(str(board)).Reload()
    scalars = {name: [(one.step, one.value) for one in read.Scalars(name)] for name in read.Tags()["scalars"]}
    assert scalars == {"loss": [(1, 1.0), (2, 0.5), (3, 7.0)], "validation_accuracy": [(3, 0.5)]}


def test_the_curves_are_also_written_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    Curves(tmp_path, 0).add({"epoch": 1, "loss": 0.5})
    assert [path.name for path in tmp_path.iterdir()] == ["curves.jsonl"]


def test_snapshots_of_the_loss_are_read_in_the_order_of_their_epochs(tmp_path: Path) -> None:
    for epoch in (100, 0, 20):
        keep_phi(tmp_path, epoch, {"output.bias": torch.tensor([float(epoch)])})
    assert {epoch: phi["output.bias"].item() for epoch, phi in kept_phi(tmp_path).items()} == {0: 0, 20: 20, 100: 100}
    assert list(kept_phi(tmp_path)) == [0, 20, 100]


def test_a_checkpoint_older_than_an_option_resumes_with_its_default(tmp_path: Path) -> None:
    config = TrainingConfig(ways=7)
    saved = json.loads(json.dumps({"ways": 7, "preset": "serving"}))
    _check_same(config, Recipe(), {"config": saved}, tmp_path)
    with pytest.raises(ValueError, match="a different configuration"):
        _check_same(config, Recipe(), {"config": saved | {"warm_up_batch": 2}}, tmp_path)


def test_a_checkpoint_with_the_default_number_of_ways_resumes_without_them(tmp_path: Path) -> None:
    _check_same(TrainingConfig.from_request({}), Recipe(), {"config": {"ways": 80}}, tmp_path)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    config, recipe = TrainingConfig(), Recipe()
    saved = json.loads(json.dumps({"config": {}, "recipe": recipe.to_json()}))
    _check_same(config, recipe, saved, tmp_path)
    with pytest.raises(ValueError, match="a different recipe"):
        _check_same(config, replace(recipe, meta_average_decay=0.5), saved, tmp_path)


def test_the_commit_of_a_source_tree_says_whether_files_differ_from_it(tmp_path: Path) -> None:
    assert provenance.commit(tmp_path) is None

    def git(*words: str) -> str:
        options = ["-c", "user.name=a", "-c", "user.email=a@example.invalid", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *options, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "--quiet")
    (tmp_path / "file").write_text("first")
    git("add", "file")
    git("commit", "--quiet", "--message", "first")
    head = git("rev-parse", "HEAD").strip()
    assert provenance.commit(tmp_path) == head
    (tmp_path / "runs").write_text("not part of the source")
    assert provenance.commit(tmp_path) == head
    (tmp_path / "file").write_text("second")
    assert provenance.commit(tmp_path) == head + "+"


def test_a_folder_with_a_broken_repository_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: nowhere")
    assert provenance.commit(tmp_path) is None


def test_provenance_has_the_commit_of_this_source_tree_and_versions() -> None:
    recorded = provenance.provenance()
    assert recorded["commit"] == provenance.commit(ROOT)
    assert recorded["torch"] == torch.__version__
    assert datetime.date.fromisoformat(recorded["date"] or "").year >= 2026


def test_missing_snapshots_of_the_loss_are_named_with_the_available_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="after meta-epoch 3; available: none"):
        kept_phi(tmp_path, [3])
    keep_phi(tmp_path, 20, {"output.bias": torch.zeros(1)})
    with pytest.raises(ValueError, match="after meta-epoch 3; available: 20"):
        kept_phi(tmp_path, [20, 3])


@pytest.fixture
def settings_of_torch() -> Iterator[None]:
    """Restores afterwards what ``devices.reproducible`` sets."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    saved = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32
    yield
    cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = saved
    torch.use_deterministic_algorithms(deterministic)


def test_a_gpu_is_set_to_full_precision_and_deterministic_algorithms_when_it_is_chosen(
    settings_of_torch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert devices.choose_device("cpu") == "cpu"
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.choose_device("auto") == "cuda"
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cuda.matmul.allow_tf32
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert devices.choose_device("cuda") == "cuda:3"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="finds no CUDA device"):
        devices.choose_device("cuda")


def test_half_precision_is_for_cuda_only() -> None:
    assert devices.half_precision("cuda:1")
    assert not devices.half_precision("cpu")


def test_gradients_through_bfloat16_are_float32() -> None:
    """With autocast on the CPU, since there may be no GPU."""
    task = float64_episode(ways=3, shots=2)
    task = type(task)(task.support.float(), task.support_labels, task.queries.float(), task.query_labels, task.ways)
    parameters = initial_parameters(MINIATURE, 0)
    full, mixed = (TaskLearner.build(MINIATURE, half_precision=half) for half in (False, True))
    exact, rough = (of.embed(parameters.theta, parameters.alpha, task.support)[0] for of in (full, mixed))
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() < 0.1 * exact.norm()
    # One step from this seed: with more steps or other seeds, so small a network amplifies rounding errors.
    of_both = [maml(of, initial_parameters(MINIATURE, 2), task, 1, torch.Generator()).gradients for of in (full, mixed)]
    exact, rough = (torch.cat([g.flatten() for n, g in of.items() if n.startswith("theta.")]) for of in of_both)
    assert torch.cosine_similarity(exact, rough, dim=0) > 0.9
    warm_up = warm_up_gradient(mixed, parameters, task, 0.5, WarmUp())
    for result in (maml(mixed, parameters, task, 2, torch.Generator()), warm_up):
        assert {value.dtype for value in result.gradients.values()} == {torch.float32}
        assert all(bool(value.isfinite().all()) for value in result.gradients.values())
        assert any(bool(value.any()) for name, value in result.gradients.items() if name.startswith("theta."))


def test_larger_images_give_smaller_tasks_and_photos_are_not_rotated(tmp_path: Path) -> None:
    data = tmp_path / "glyphs"
    write_folders(data, classes=6, images=2, seed=0)
    classes = load_dataset(data, ImageSpec(size=8))["train"]
    for preset, images in (("serving", 160), ("rgb84", 40)):
        options = TrainingConfig.from_request({"preset": preset})
        assert TaskSource(options, options.model_config(), Recipe(), classes, "cpu").most_images() == images
    assert TrainingConfig.from_request({}).rotations
    assert not TrainingConfig.from_request({"preset": "rgb84"}).rotations
    assert TrainingConfig.from_request({"preset": "rgb84", "rotations": True}).rotations


def test_only_the_first_process_of_a_run_writes() -> None:
    assert [Ranks(rank, 3).first for rank in range(3)] == [True, False, False]
    assert Ranks().first


def test_a_written_checkpoint_is_read_back(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "deep" / "a.safetensors", {"x": torch.arange(3)}, {"n": 1})
    tensors, state = checkpoint.read(tmp_path / "deep" / "a.safetensors")
    assert (tensors["x"].tolist(), state) == ([0, 1, 2], {"n": 1})
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.safetensors"]
