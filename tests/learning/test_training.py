"""Training resumes where it was stopped, and refuses unusable options and data sets at the start."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from lamanas_core import images
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.config import PRESETS, TrainingConfig
from lamanas_core.data.folders import load_all, load_dataset, notes, usual_split
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.data.sources.omniglot import class_files
from lamanas_core.data.splits import DatasetError
from lamanas_core.image_spec import ImageSpec
from lamanas_core.meta_model import MetaModel
from lamanas_core.train import loop as training
from lamanas_core.train.loop import TrainingProgress, TrainingStopped, train
from tests.learning.brief_training import SMALLEST, brief, brief_recipe, miniature, trained

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
    monkeypatch.setattr(training, "recipe_for", lambda preset: recipe)
    monkeypatch.setitem(PRESETS, "tiny", SMALLEST)
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
        ({"preset": "huge"}, "preset is 'huge'; valid values: serving, rgb84, photos, tiny, paper"),
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
    with pytest.raises(DatasetError, match=rf"^{tmp_path}/glyph003/01\.png: not a PNG[^(]*$"):
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


def test_a_training_names_a_damaged_image_and_can_leave_it_out(tmp_path: Path) -> None:
    write_folders(tmp_path / "data", classes=8, images=4, seed=0)
    damaged = tmp_path / "data" / "glyph003" / "01.png"
    damaged.write_bytes(b"no image")
    with miniature():
        with pytest.raises(DatasetError, match=rf"^{damaged}: not a PNG.*--skip-damaged"):
            trained(brief(), tmp_path / "data", tmp_path / "run")
        model = trained(brief(skip_damaged=True, meta_epochs=1), tmp_path / "data", tmp_path / "other")
    [told] = [words for part in ("train", "val", "test") for words in model.card["data"][part].get("damaged", ())]
    assert told.startswith(f"{damaged}: not a PNG")


def split_folders(folder: Path, parts: Sequence[str], *, classes: int = 6, images: int = 2) -> None:
    """The same classes in each of these folders, with different images."""
    for seed, part in enumerate(parts):
        write_folders(folder / part, classes=classes, images=images, seed=seed)


def test_what_systems_leave_is_no_image_and_a_wrapping_folder_no_part_of_the_names(tmp_path: Path) -> None:
    write_folders(tmp_path / "plain", classes=6, images=2, seed=0)
    write_folders(tmp_path / "wrapped" / "symbols", classes=6, images=2, seed=0)
    for name in ("glyph001/._00.png", ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/glyph001/1.png", "Icon\r"):
        path = tmp_path / "wrapped" / "symbols" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    plain, wrapped = (load_dataset(tmp_path / name, ImageSpec()) for name in ("plain", "wrapped"))
    for part, classes in plain.items():
        assert wrapped[part].names == classes.names
        assert wrapped[part].digests() == classes.digests()
    assert notes(tmp_path / "plain") == notes(tmp_path / "wrapped") == ()


def test_the_order_of_classes_and_images_is_that_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "b c", "B", "a"):
        write_folders(tmp_path / "made", classes=1, images=11, seed=len(name))
        for number, path in enumerate(sorted((tmp_path / "made" / "glyph000").iterdir())):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            path.rename(tmp_path / "data" / name / f"{number}.png")
    classes = load_all(tmp_path / "data", ImageSpec())
    assert classes.names == ("B", "a", "b", "b c")
    files = sorted((tmp_path / "data" / "a").iterdir())
    assert [path.name for path in files][:3] == ["0.png", "1.png", "10.png"]
    expected = [images.load(path.read_bytes(), ImageSpec(), max_pixels=10**6) for path in files]
    assert (classes.images[classes.members[1]].numpy() == expected).all()


def test_train_val_and_test_folders_are_the_splits(tmp_path: Path) -> None:
    split_folders(tmp_path / "data", ("train", "val", "test"))
    splits = load_dataset(tmp_path / "data", ImageSpec())
    for part, classes in splits.items():
        assert classes.names == tuple(f"{part}/glyph{number:03}" for number in range(6))
        assert classes.digests() == load_all(tmp_path / "data" / part, ImageSpec()).digests()
    assert notes(tmp_path / "data") == ("train, val and test are the splits of the training",)


def test_other_spellings_of_splits_in_a_wrapping_folder_are_the_same(tmp_path: Path) -> None:
    split_folders(tmp_path / "one", ("train", "val", "test"))
    split_folders(tmp_path / "other" / "symbols", ("Training", "Valid", "TESTING"))
    one, other = (load_dataset(tmp_path / name, ImageSpec()) for name in ("one", "other"))
    assert {part: classes.names for part, classes in one.items()} == {p: found.names for p, found in other.items()}
    assert [classes.digests() for classes in one.values()] == [classes.digests() for classes in other.values()]


@pytest.mark.parametrize(("there", "missing"), [(("train", "test"), "val"), (("train", "val"), "test")])
def test_a_missing_split_is_drawn_from_the_training_classes(
    tmp_path: Path, there: tuple[str, ...], missing: str
) -> None:
    split_folders(tmp_path, there, classes=8)
    splits: dict[str, set[str]] = {
        part: set(found.names) for part, found in load_dataset(tmp_path, ImageSpec()).items()
    }
    [other] = {"val", "test"} - {missing}
    assert splits[other] == {f"{other}/glyph{number:03}" for number in range(8)}
    assert len(splits[missing]) == 2
    assert splits["train"] | splits[missing] == {f"train/glyph{number:03}" for number in range(8)}
    assert not splits["train"] & splits[missing]
    told = f"there are no class folders for {missing}: some classes of the training images are kept for it"
    assert told in notes(tmp_path)
    (tmp_path / missing).mkdir()
    (tmp_path / missing / "1.png").write_bytes(b"")  # a folder, but no class folder
    assert told in notes(tmp_path)


def test_splits_that_cannot_be_trained_on_are_refused_in_words(tmp_path: Path) -> None:
    split_folders(tmp_path / "a", ("val", "test"))
    with pytest.raises(DatasetError, match="there are no class folders for train beside val and test"):
        load_dataset(tmp_path / "a", ImageSpec())
    split_folders(tmp_path / "b", ("train", "val"), classes=3)
    with pytest.raises(DatasetError, match=r"3 classes in the train split; at least 4 are needed"):
        load_dataset(tmp_path / "b", ImageSpec())
    split_folders(tmp_path / "c", ("train", "val", "test"), classes=1)
    with pytest.raises(DatasetError, match="1 class in the train split; at least 2 are needed"):
        load_dataset(tmp_path / "c", ImageSpec())


def test_splits_are_one_set_of_classes_where_there_is_no_training(tmp_path: Path) -> None:
    split_folders(tmp_path, ("train", "val", "test"))
    classes = load_all(tmp_path, ImageSpec())
    assert classes.names == tuple(f"glyph{number:03}" for number in range(6))
    assert [len(members) for members in classes.members] == 6 * [6]


def test_images_without_a_label_belong_to_no_class_and_are_told(tmp_path: Path) -> None:
    write_folders(tmp_path, classes=7, images=2, seed=0)
    (tmp_path / "glyph006").rename(tmp_path / "_unlabelled")
    assert load_all(tmp_path, ImageSpec()).names == tuple(f"glyph{number:03}" for number in range(6))
    assert notes(tmp_path) == ("2 images in folders named _unlabelled belong to no class and were not used",)


def test_files_that_are_no_images_are_skipped_and_told(tmp_path: Path) -> None:
    write_folders(tmp_path, classes=6, images=2, seed=0)
    for name in ("plan.pdf", "glyph001/notes.txt", "docs/read.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert len(load_all(tmp_path, ImageSpec())) == 6
    assert notes(tmp_path) == ("12 added, 3 skipped: docs/read.md, glyph001/notes.txt, plan.pdf",)


def test_a_file_that_claims_to_be_an_image_and_is_none_is_named_by_its_whole_path(tmp_path: Path) -> None:
    write_folders(tmp_path / "data", classes=6, images=2, seed=0)
    (tmp_path / "data" / "glyph002" / "02.bmp").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=rf"^{tmp_path}/data/glyph002/02\.bmp: not a"):
        load_dataset(tmp_path / "data", ImageSpec())


def test_nested_folders_are_told(tmp_path: Path) -> None:
    for group in ("Greek", "Latin"):
        write_folders(tmp_path / group, classes=3, images=2, seed=len(group))
    assert load_all(tmp_path, ImageSpec()).groups == ("Greek",) * 3 + ("Latin",) * 3
    assert notes(tmp_path) == ("folders are nested: a class is named by the path of its folder, e.g. Greek/glyph000",)


def test_omniglot_tells_how_it_is_read(tmp_path: Path) -> None:
    for part in ("images_background", "images_evaluation"):
        write_folders(tmp_path / part / "Greek", classes=3, images=2, seed=0)
        (tmp_path / part / "Greek" / ".DS_Store").write_bytes(b"")
        (tmp_path / part / "Greek" / "glyph000" / "._00.png").write_bytes(b"")
    assert load_all(tmp_path, ImageSpec()).names == tuple(
        f"images_{part}/Greek/glyph{number:03}" for part in ("background", "evaluation") for number in range(3)
    )
    first = "images_background/Greek/glyph000"
    assert notes(tmp_path) == (f"folders are nested: a class is named by the path of its folder, e.g. {first}",)


def test_a_folder_without_classes_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="contains no class folders"):
        load_dataset(tmp_path, ImageSpec())
    with pytest.raises(DatasetError, match="is not a folder"):
        load_dataset(tmp_path / "missing", ImageSpec())


def test_omniglot_has_the_vinyals_split(omniglot: Path) -> None:
    split = usual_split(omniglot, 0)
    assert {part: len(names) for part, names in split.items()} == {"train": 1028, "val": 172, "test": 423}
    names = [name for names in split.values() for name in names]
    files = dict(class_files(omniglot))
    assert set(names) == files.keys()
    assert len(names) == 1623
    assert all(len(images) == 20 for images in files.values())
    assert {name.partition("/")[0] for name in split["test"]} == {"images_evaluation"}
    some = load_dataset(omniglot, ImageSpec(), split={"test": split["test"][::100]})["test"]
    assert all(name.startswith(f"{group}/") for group, name in zip(some.groups, some.names, strict=True))
    assert [len(members) for members in some.members] == [20] * 5
