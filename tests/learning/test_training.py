"""Training resumes where it was stopped, and refuses unusable options and data sets at the start."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.config import PRESETS, TrainingConfig
from lamanas_core.data.folders import load_all, load_dataset
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.data.splits import DatasetError
from lamanas_core.image_spec import ImageSpec
from lamanas_core.meta_model import MetaModel
from lamanas_core.train import loop as training
from lamanas_core.train.loop import TrainingProgress, TrainingStopped, train
from tests.learning.brief_training import brief_recipe
from tests.learning.helpers import MINIATURE

STEPS_PER_EPOCH = 2


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glyphs")
    write_folders(folder, classes=8, images=3, seed=0)
    return folder


@pytest.fixture
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, a miniature network, very short epochs, a checkpoint after every second one, and few validation
    episodes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    recipe = brief_recipe(STEPS_PER_EPOCH, validate=False, save_every=2)
    monkeypatch.setattr(training, "RECIPE", recipe)
    monkeypatch.setitem(PRESETS, "tiny", MINIATURE)
    yield
    torch.set_num_threads(threads)


def config(**options: object) -> TrainingConfig:
    small = {"preset": "tiny", "warm_up_epochs": 3, "meta_epochs": 3, "meta_batch": 2, "ways": 3, "shots": 1}
    return TrainingConfig.from_request(small | options)


def run(
    chosen: TrainingConfig,
    data: Path,
    run_dir: Path,
    should_stop: Callable[[], bool] = lambda: False,
    epochs: list[int] | None = None,
) -> MetaModel:
    def on_progress(progress: TrainingProgress) -> None:
        if epochs is not None:
            epochs.append(progress.epoch)

    return train(chosen, data, run_dir, device="cpu", on_progress=on_progress, should_stop=should_stop)


def stop_after(tasks: int) -> Callable[[], bool]:
    """A ``should_stop`` that stops the training after this many tasks."""
    remaining = iter(range(tasks))
    return lambda: next(remaining, None) is None


@pytest.mark.parametrize("meta", ["maml", "reptile"])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(
    short_epochs: None, glyphs: Path, tmp_path: Path, meta: str
) -> None:
    chosen = config(meta=meta)
    uninterrupted = run(chosen, glyphs, tmp_path / "uninterrupted")
    # Stopped in the warm-up, directly after a checkpoint, then in the meta-training, in the middle of an epoch.
    epochs: list[int] = []
    with pytest.raises(TrainingStopped):
        run(chosen, glyphs, tmp_path / "interrupted", stop_after(2 * STEPS_PER_EPOCH + 1), epochs)
    assert epochs == [1, 2]
    with pytest.raises(TrainingStopped):
        run(chosen, glyphs, tmp_path / "interrupted", stop_after(STEPS_PER_EPOCH + 2 * 2 + 1), epochs)
    assert epochs == [1, 2, 3, 4, 5]
    resumed = run(chosen, glyphs, tmp_path / "interrupted", epochs=epochs)
    assert epochs == [1, 2, 3, 4, 5, 5, 6]  # epoch 5 is repeated, since it has no checkpoint
    assert resumed.to_bytes() == uninterrupted.to_bytes()
    assert resumed.version == uninterrupted.version
    untrained = initial_parameters(chosen.model_config(), chosen.seed)
    for part in ("theta", "alpha", "phi"):
        pairs = [
            (value, getattr(untrained, part)[name]) for name, value in getattr(uninterrupted.parameters, part).items()
        ]
        assert any(not torch.equal(value, start) for value, start in pairs), part


def test_a_checkpoint_of_another_configuration_is_refused(short_epochs: None, glyphs: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped):
        run(config(), glyphs, tmp_path, stop_after(2 * STEPS_PER_EPOCH))
    with pytest.raises(ValueError, match="contains a run with a different configuration"):
        run(config(loss="fnn"), glyphs, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": "red", "ways": 3}, "unknown options: colour"),
        ({"preset": "huge"}, "preset is 'huge'; valid values: serving, rgb84, tiny, paper"),
        ({"meta": "evolution"}, "meta is 'evolution'"),
        ({"loss": "hinge"}, "loss is 'hinge'"),
        ({"proxy": "distance"}, "proxy is 'distance'"),
        ({"ways": 1}, "ways at least 2"),
        ({"meta_epochs": 0}, "at least 1"),
    ],
)
def test_unknown_options_and_invalid_values_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig.from_request(options)


def test_a_short_run_has_a_short_warm_up() -> None:
    assert TrainingConfig.from_request({"meta_epochs": 1}).warm_up_epochs == 2
    assert TrainingConfig.from_request({"meta_epochs": 1, "warm_up_epochs": 5}).warm_up_epochs == 5


def test_a_folder_is_split_by_class_and_seed(tmp_path: Path) -> None:
    write_folders(tmp_path, classes=20, images=2, seed=0)
    names = [
        {part: classes.names for part, classes in load_dataset(tmp_path, ImageSpec(), seed=seed).items()}
        for seed in (0, 0, 1)
    ]
    assert names[0] == names[1] != names[2]
    assert {part: len(chosen) for part, chosen in names[0].items()} == {"train": 14, "val": 3, "test": 3}
    assert len({name for chosen in names[0].values() for name in chosen}) == 20


def test_all_classes_of_a_folder_can_be_loaded_without_a_split(tmp_path: Path) -> None:
    write_folders(tmp_path, classes=3, images=2, seed=0)
    classes = load_all(tmp_path, ImageSpec())
    assert [len(members) for members in classes.members] == [2, 2, 2]
    with pytest.raises(DatasetError, match="contains no class folders"):
        load_all(tmp_path / "glyph000", ImageSpec())


def test_too_few_classes_are_counted_in_the_error(tmp_path: Path) -> None:
    write_folders(tmp_path, classes=5, images=2, seed=0)
    with pytest.raises(DatasetError, match=r"5 classes; training needs at least 6"):
        load_dataset(tmp_path, ImageSpec())


def test_a_class_with_one_image_is_named(tmp_path: Path) -> None:
    write_folders(tmp_path, classes=6, images=2, seed=0)
    (tmp_path / "glyph003" / "00.png").unlink()
    with pytest.raises(DatasetError, match=r"glyph003: 1 image; a class needs at least 2"):
        load_dataset(tmp_path, ImageSpec())


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write_folders(tmp_path, classes=6, images=2, seed=0)
    (tmp_path / "glyph003" / "01.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"/glyph003/01\.png: .*--skip-damaged"):
        load_dataset(tmp_path, ImageSpec())


def test_damaged_images_are_left_out_on_request(tmp_path: Path) -> None:
    write_folders(tmp_path, classes=6, images=3, seed=0)
    damaged = tmp_path / "glyph003" / "01.png"
    damaged.write_bytes(b"no image")
    splits = load_dataset(tmp_path, ImageSpec(), skip_damaged=True)
    told = [words for classes in splits.values() for words in classes.damaged]
    assert len(told) == 1
    assert told[0].startswith(f"{damaged}: not a PNG")
    assert sum(len(classes.images) for classes in splits.values()) == 6 * 3 - 1
    (tmp_path / "glyph003" / "02.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"glyph003: without the damaged images, fewer than 2 are left: .*02\.png"):
        load_dataset(tmp_path, ImageSpec(), skip_damaged=True)


def test_a_folder_without_classes_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="contains no class folders"):
        load_dataset(tmp_path, ImageSpec())
    with pytest.raises(DatasetError, match="is not a folder"):
        load_dataset(tmp_path / "missing", ImageSpec())


def test_omniglot_has_the_vinyals_split(omniglot: Path) -> None:
    splits = load_dataset(omniglot, ImageSpec())
    assert {part: len(classes) for part, classes in splits.items()} == {"train": 1028, "val": 172, "test": 423}
    assert all(len(members) == 20 for classes in splits.values() for members in classes.members)
    names = [name for classes in splits.values() for name in classes.names]
    assert len(set(names)) == len(names) == 1623
    assert {name.partition("/")[0] for name in splits["test"].names} == {"images_evaluation"}
    alphabets = set(zip(splits["test"].groups, splits["test"].names, strict=True))
    assert all(name.startswith(f"{group}/") for group, name in alphabets)
