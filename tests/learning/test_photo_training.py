"""Training of the photo model on a folder of photos: what is trained, in which styles, and that it can be resumed."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.config import PRESETS, Calibration, TrainingConfig
from lamanas_core.data.folders import ImageClasses, load_dataset
from lamanas_core.data.maps import in_mixed_light, in_styles, with_inputs
from lamanas_core.measure.calibrate import calibrated
from lamanas_core.measure.evaluate import EvaluationConfig, evaluate
from lamanas_core.meta_model import MetaModel, read, write
from lamanas_core.recipe import CalibrationEpisodes, Recipe, Styles, recipe_for
from lamanas_core.search.registry import make_network
from lamanas_core.train import loop
from lamanas_core.train.loop import TrainingProgress, TrainingStopped, train
from lamanas_core.train.run_folder import kept_phi
from lamanas_core.train.starting import with_prior_of
from lamanas_core.train.tasks import TaskSource
from tests.learning.brief_training import brief_recipe

PHOTOS = PRESETS["photos"]
BRIEF = brief_recipe(steps=1)


def write_photos(folder: Path, classes: int, images: int) -> Path:
    """Class folders of smooth noise around a colour per class."""
    generator = torch.Generator().manual_seed(0)
    for label in range(classes):
        own = torch.rand(3, 4, 4, generator=generator)
        for number in range(images):
            colours = (0.7 * own + 0.3 * torch.rand(3, 4, 4, generator=generator)) * 255
            path = folder / f"class {label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(colours.byte().permute(1, 2, 0).numpy()).resize((64, 64)).save(path)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As few classes as each split needs: three to calibrate on are two and one that is none of them."""
    folder = write_photos(tmp_path_factory.mktemp("photos"), classes=11, images=3)
    for part, labels in {"train": range(6), "val": range(6, 9), "test": range(9, 11)}.items():
        (folder / part).mkdir()
        for label in labels:
            (folder / f"class {label}").rename(folder / part / f"class {label}")
    return folder


def recipe() -> Recipe:
    photos = recipe_for("photos")
    tasks = replace(photos.tasks, cached_styles=1)
    return replace(photos, schedule=BRIEF.schedule, calibration=BRIEF.calibration, tasks=tasks)


def trained(
    data: Path,
    run: Path,
    should_stop: Callable[[], bool] = lambda: False,
    start: str | None = None,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
) -> MetaModel:
    options = {"preset": "photos", "warm_up_epochs": 1, "meta_epochs": 2, "meta_batch": 2, "shots": 2, "start": start}
    return train(
        TrainingConfig.from_request(options),
        data,
        run,
        device="cpu",
        on_progress=on_progress,
        should_stop=should_stop,
        recipe=recipe(),
    )


@dataclass(frozen=True)
class Run:
    """An uninterrupted run: its folder, what it told after each epoch, its model, and what that was calibrated on."""

    folder: Path
    told: list[TrainingProgress]
    model: MetaModel
    uncalibrated: MetaModel
    calibrated_on: ImageClasses


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("whole")
    told: list[TrainingProgress] = []
    given: list[tuple[MetaModel, ImageClasses]] = []

    def noted(model: MetaModel, classes: ImageClasses, seed: int, recipe: CalibrationEpisodes) -> MetaModel:
        given.append((model, classes))
        return calibrated(model, classes, seed, recipe)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "calibrated", noted)
        model = trained(data, folder, on_progress=told.append)
    return Run(folder, told, model, *given[0])


def test_a_run_trains_all_but_the_start_of_the_operations_and_can_be_resumed(
    data: Path, whole: Run, tmp_path: Path
) -> None:
    remaining = iter(range(5))
    with pytest.raises(TrainingStopped):
        trained(data, tmp_path / "stopped", lambda: next(remaining, None) is None)
    resumed = trained(data, tmp_path / "stopped")
    assert resumed.version == whole.model.version

    parameters = whole.model.parameters
    theta = parameters.theta
    assert all(not value.any() for name, value in theta.items() if name.startswith("maps."))
    assert theta["head.centre"].any()
    assert theta["head.log_scales"].any()
    assert theta["head.directions"].any()  # from the data: at 0, they would stay there
    assert parameters.theta_log_rates.std(0).max() > 0  # each step has its own sizes
    assert not torch.equal(parameters.alpha["inputs"], torch.zeros(3))
    assert whole.model.config.calibration.temperature != 1.0
    write(whole.model, tmp_path / "model")
    assert read(tmp_path / "model").version == whole.model.version


def test_a_run_can_be_stopped_after_its_last_epoch_and_resumed(
    data: Path, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the maps of the photos for calibration are computed, and those of the training not again."""
    assert [progress.epoch for progress in whole.told] == [1, 2, 3]
    assert whole.told[-1].saved
    run = shutil.copytree(whole.folder, tmp_path / "run")
    shutil.rmtree(run / "phi")
    monkeypatch.setattr(loop, "in_styles", None)
    told = list[TrainingProgress]()
    with pytest.raises(TrainingStopped):
        trained(data, run, lambda: True, on_progress=told.append)
    assert max(kept_phi(run)) == 2
    resumed = trained(data, run, on_progress=told.append)
    assert not told
    assert resumed.version == whole.model.version


def test_before_a_training_the_head_knows_what_the_photos_of_a_class_differ_in(data: Path) -> None:
    learner, parameters = TaskLearner.build(PHOTOS), initial_parameters(PHOTOS, 0)
    train_split = load_dataset(data, PHOTOS.network.image)["train"]
    classes = in_styles(train_split, learner.network, Styles(), 1, 0, lambda: None)
    found = with_prior_of(parameters, learner, classes)
    changed = {name for name, value in found.named().items() if not torch.equal(value, parameters.named()[name])}
    assert changed == {"theta.head.centre", "theta.head.directions"}

    features, _ = learner.embed(found.theta, found.alpha, learner.network.inputs(classes.images.flatten(0, 1)))
    torch.testing.assert_close(found.theta["head.centre"], features.mean(0))
    # Other light makes photos of a class differ: less so where they are compared.
    as_they_are, in_style = (
        learner.head.compared(found.theta, features[style::2]) - learner.head.compared(found.theta, features).mean(0)
        for style in (0, 1)
    )
    plain = replace(parameters, theta=parameters.theta | {"head.centre": found.theta["head.centre"]})
    before = learner.head.compared(plain.theta, features)
    assert (as_they_are - in_style).square().sum() < (before[::2] - before[1::2]).square().sum()


def test_a_model_is_calibrated_in_mixed_light(data: Path, whole: Run) -> None:
    network, given = make_network(PHOTOS.network), whole.calibrated_on
    split = load_dataset(data, PHOTOS.network.image)["val"]
    assert split.names == given.names
    assert given.images.shape == (9, 4, 37632)
    same = (with_inputs(split, network).images == given.images).all(2)
    assert same.any()
    assert not same.all()
    assert (same.any(1) == same.all(1)).all()  # the crops of an image are in its light
    assert whole.uncalibrated.config.calibration == Calibration()


def test_a_training_from_an_earlier_model_keeps_its_prior_and_uses_crops(data: Path, tmp_path: Path) -> None:
    before = replace(PHOTOS, network=replace(PHOTOS.network, crops=0))
    start = MetaModel(initial_parameters(PHOTOS, 0), {"config": before.to_json()})
    start.parameters.theta["head.centre"].fill_(0.01)
    write(start, tmp_path / "start")
    found = trained(data, tmp_path / "run", start=str(tmp_path / "start"))
    torch.testing.assert_close(found.parameters.theta["head.centre"], torch.full((2144,), 0.01), rtol=0, atol=5e-3)
    assert found.config.network.crops == 3


def test_a_model_is_evaluated_on_maps_as_on_images(data: Path) -> None:
    network = make_network(PHOTOS.network)
    model = MetaModel(initial_parameters(PHOTOS, 0), {"config": PHOTOS.to_json()})
    classes = load_dataset(data, PHOTOS.network.image)["train"]
    config = EvaluationConfig(ways=3, shots=2, queries=2, episodes=2)
    of_images = evaluate(model, classes, config, lambda number: None)
    of_maps = evaluate(model, with_inputs(classes, network), config, lambda number: None)
    assert of_images.accuracies == of_maps.accuracies
    assert of_images.accuracy > 0.8


def test_tasks_are_in_the_style_of_the_data_or_in_one_that_was_computed(data: Path) -> None:
    network = make_network(PHOTOS.network)
    classes = load_dataset(data, PHOTOS.network.image)["train"]
    computed = in_styles(classes, network, Styles(coarse=1.0, exposure=1.0), 2, 0, lambda: None)
    assert computed.images.shape == (18, 3, 37632)
    assert torch.equal(computed.images[:, 0], with_inputs(classes, network).images[:, 0])
    assert not torch.equal(computed.images[:, 1], computed.images[:, 2])
    # The same style for all images, however many are computed at a time.
    few = in_styles(
        replace(classes, images=classes.images[:2]), network, Styles(coarse=1.0, exposure=1.0), 2, 0, lambda: None
    )
    assert torch.equal(few.images, computed.images[:2])

    light = in_mixed_light(classes, network, Styles(coarse=1.0, exposure=1.0), 2, 0, lambda: None)
    mixed = with_inputs(light, network).images[:, 0]
    of_style = [(mixed == computed.images[:, style]).all(1) for style in range(3)]
    assert all(2 < int(own.sum()) < 11 for own in of_style)
    assert torch.stack(of_style).any(0).all()

    config = TrainingConfig.from_request({"preset": "photos"})
    source = TaskSource(config, config.model_config(), recipe_for("photos"), computed, "cpu")
    found = set()
    for seed in range(12):
        episode = source.adaptation_task(seed)
        rows = {row for image in episode.support for row in range(3) if (computed.images[:, row] == image).all(1).any()}
        assert len(rows) == 1
        found |= rows
    assert found == {0, 1, 2}
