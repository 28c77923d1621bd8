"""Training uses only the training split; validation and calibration use only the validation split."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli.main import main
from lamanas_core.data.folders import ImageClasses, load_all, load_dataset
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.data.sources.omniglot import class_files
from lamanas_core.data.splits import DatasetError, Split, by_seed
from lamanas_core.meta_model import MetaModel, read, write
from lamanas_core.train import loop as training
from lamanas_core.train.run_folder import read_curves, read_split
from lamanas_core.train.trained_classes import recognised
from tests.learning.brief_training import SMALLEST, brief, miniature, trained

IMAGE = SMALLEST.network.image


@dataclass(frozen=True)
class Run:
    """A finished training and the splits that it was run on."""

    model: MetaModel
    curves: list[dict[str, Any]]
    splits: dict[Split, ImageClasses]

    def validated(self) -> list[float]:
        return [row["validation_accuracy"] for row in self.curves]

    def same_weights(self, other: "Run") -> bool:
        theirs = other.model.parameters.named()
        return all(torch.equal(value, theirs[name]) for name, value in self.model.parameters.named().items())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The same training on the original data and, for each split, on data in which that split has other images."""
    folder = tmp_path_factory.mktemp("splits")
    write_folders(folder / "glyphs", classes=20, images=4, seed=0)
    write_folders(folder / "others", classes=20, images=4, seed=1)
    names = {part: found.names for part, found in load_dataset(folder / "glyphs", IMAGE).items()}
    done = {}
    for changed in ("none", "train", "val", "test"):
        data = shutil.copytree(folder / "glyphs", folder / changed / "data")
        for part, classes in names.items():
            for name in classes if part == changed else ():
                shutil.copytree(folder / "others" / name, data / name, dirs_exist_ok=True)
        with miniature():
            model = trained(brief(warm_up_epochs=1, meta_epochs=1), data, folder / changed / "run", validate=True)
        done[changed] = Run(model, read_curves(folder / changed / "run"), load_dataset(data, IMAGE))
    return done


def test_the_weights_depend_only_on_the_training_split(runs: dict[str, Run]) -> None:
    assert runs["val"].same_weights(runs["none"])
    assert runs["test"].same_weights(runs["none"])
    assert not runs["train"].same_weights(runs["none"])


def test_validation_uses_only_the_validation_split(runs: dict[str, Run]) -> None:
    assert runs["test"].validated() == runs["none"].validated()
    assert runs["val"].validated() != runs["none"].validated()


def test_calibration_uses_only_the_validation_split(runs: dict[str, Run]) -> None:
    fitted = {changed: run.model.config.calibration for changed, run in runs.items()}
    assert fitted["test"] == fitted["none"]
    assert fitted["val"] != fitted["none"]


def test_the_card_states_the_ink_range_of_the_training_split(runs: dict[str, Run]) -> None:
    for run in runs.values():
        ink = run.splits["train"].images.numpy().mean((1, 2, 3)) / 255
        stated = run.model.card["domain"]["ink"]
        assert stated == pytest.approx(np.quantile(ink, [0.01, 0.99]).tolist(), abs=1e-4)
    assert runs["train"].model.card["domain"] != runs["none"].model.card["domain"]


def test_a_run_records_the_split_that_it_trains_on(tmp_path: Path) -> None:
    write_folders(tmp_path / "data", classes=20, images=4, seed=0)
    with miniature():
        trained(brief(warm_up_epochs=1, meta_epochs=1, seed=3), tmp_path / "data", tmp_path / "run")
    expected = load_dataset(tmp_path / "data", IMAGE, seed=3)
    assert read_split(tmp_path / "run") == {part: list(classes.names) for part, classes in expected.items()}


def test_fewer_than_six_classes_are_not_split() -> None:
    names = [f"class {number}" for number in range(6)]
    with pytest.raises(DatasetError, match="5 classes; training needs at least 6"):
        by_seed(names[:5], 0)
    parts = by_seed(names, 0)
    assert sorted(name for part in parts.values() for name in part) == names
    assert min(len(part) for part in parts.values()) >= 1


@pytest.mark.parametrize("zipped", [(), ("images_background",), ("images_background", "images_evaluation")])
def test_omniglot_is_read_from_folders_and_zips(zipped: tuple[str, ...], tmp_path: Path) -> None:
    drawings = {}
    for number, part in enumerate(("images_background", "images_evaluation")):
        for character in ("character01", "character02"):
            folder = tmp_path / part / "Alphabet" / character
            folder.mkdir(parents=True)
            drawings[f"{part}/Alphabet/{character}"] = bytes([number, int(character[-1])])
            (folder / "0001_01.png").write_bytes(drawings[f"{part}/Alphabet/{character}"])
        if part in zipped:
            shutil.make_archive(str(tmp_path / part), "zip", tmp_path, part)
            shutil.rmtree(tmp_path / part)
    assert {name: images[0].read() for name, images in class_files(tmp_path)} == drawings


@pytest.fixture
def without_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings only load their data and write their files."""
    monkeypatch.setattr(training, "_epoch", lambda *arguments: 0.0)
    monkeypatch.setattr(training, "_validate", lambda *arguments: 0.5)
    monkeypatch.setattr(training, "calibrated", lambda model, *arguments: model)


def start_of(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """A data set of 20 classes and the folder of a finished run on it."""
    data, run = folder / "data", folder / "start"
    write_folders(data, classes=20, images=4, seed=0)
    with miniature():
        write(trained(brief(warm_up_epochs=0, meta_epochs=1, seed=seed), data, run), run)
    return data, run


def continued(start: Path, data: Path, run: Path, seed: int = 1) -> dict[Split, list[str]]:
    """The split of a run on ``data`` that starts from the model in ``start``; its model is written to ``run``."""
    with miniature():
        options = brief(warm_up_epochs=0, meta_epochs=1, seed=seed, start=str(start))
        write(trained(options, data, run), run)
    split = read_split(run)
    assert split is not None
    return split


def with_folders_renamed(data: Path, to: Path) -> dict[str, str]:
    """Copies of the class folders of ``data`` in ``to``, under other names and with other file names; the new names by
    the old ones."""
    names = {}
    for number, folder in enumerate(sorted(data.iterdir(), reverse=True)):
        names[folder.name] = f"class {number:02d}"
        (to / names[folder.name]).mkdir(parents=True)
        for at, file in enumerate(sorted(folder.iterdir(), reverse=True)):
            shutil.copy(file, to / names[folder.name] / f"image {at}.png")
    return names


def without_digests(run: Path) -> None:
    """Make the card in ``run`` one of a model that was trained before cards had digests."""
    card = json.loads((run / "model.json").read_text())
    del card["data"]["train"]["digests"]
    (run / "model.json").write_text(json.dumps(card))


def test_the_digest_of_a_class_depends_on_its_images_only(tmp_path: Path) -> None:
    write_folders(tmp_path / "data", classes=6, images=3, seed=0)
    names = with_folders_renamed(tmp_path / "data", tmp_path / "copy")
    one, other = (load_all(tmp_path / folder, IMAGE) for folder in ("data", "copy"))
    assert len(set(one.digests())) == 6
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in one.digests())
    copied = dict(zip(other.names, other.digests(), strict=True))
    assert [copied[names[name]] for name in one.names] == list(one.digests())
    shutil.copy(tmp_path / "data" / one.names[0] / "00.png", tmp_path / "data" / one.names[0] / "01.png")
    changed = load_all(tmp_path / "data", IMAGE).digests()
    assert changed[0] != one.digests()[0]
    assert changed[1:] == one.digests()[1:]


def test_no_digest_is_computed_for_a_model_without_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folders(tmp_path, classes=2, images=2, seed=0)
    classes = load_all(tmp_path, IMAGE)
    assert recognised(classes, [classes.digests()[1]]) == [classes.names[1]]
    monkeypatch.setattr(ImageClasses, "digests", lambda _: pytest.fail("the images were read for nothing"))
    assert recognised(classes, frozenset()) == []


@pytest.mark.usefixtures("without_steps")
@pytest.mark.parametrize("digests", [True, False])
def test_a_run_that_starts_from_a_model_keeps_the_split_of_the_same_data_set(tmp_path: Path, digests: bool) -> None:
    data, start = start_of(tmp_path)
    if not digests:
        without_digests(start)
    assert continued(start, data, tmp_path / "run") == read_split(start)


@pytest.mark.usefixtures("without_steps")
def test_a_run_that_starts_from_a_model_keeps_the_split_of_a_renamed_data_set(tmp_path: Path) -> None:
    data, start = start_of(tmp_path)
    assert continued(start, data.rename(tmp_path / "renamed"), tmp_path / "run") == read_split(start)


@pytest.mark.usefixtures("without_steps")
def test_classes_that_the_start_was_trained_on_stay_training_classes_under_other_names(tmp_path: Path) -> None:
    data, start = start_of(tmp_path)
    before = read_split(start)
    assert before is not None
    names = with_folders_renamed(data, tmp_path / "others")
    write_folders(tmp_path / "others" / "more", classes=10, images=4, seed=1)
    split = continued(start, tmp_path / "others", tmp_path / "run")
    assert {names[name] for name in before["train"]} <= set(split["train"])
    assert len({name for part in split.values() for name in part}) == 30
    assert len(split["val"]) == len(split["test"]) == 4  # 15 %
    # Without the model, some of these classes would have been held out.
    usual = by_seed(sorted(name for part in split.values() for name in part), 1)
    assert {names[name] for name in before["train"]} & {*usual["val"], *usual["test"]}


@pytest.mark.usefixtures("without_steps")
def test_classes_that_the_start_was_trained_on_stay_training_classes_in_a_data_set_with_new_ones(
    tmp_path: Path,
) -> None:
    data, start = start_of(tmp_path)
    without_digests(start)
    before = read_split(start)
    assert before is not None
    write_folders(data / "more", classes=10, images=4, seed=1)
    split = continued(start, data, tmp_path / "run")
    assert set(before["train"]) <= set(split["train"])
    assert any(name.startswith("more/") for name in split["train"])


@pytest.mark.usefixtures("without_steps")
def test_too_few_other_classes_to_validate_and_test_on_are_refused(tmp_path: Path) -> None:
    data, start = start_of(tmp_path)
    split = read_split(start)
    assert split is not None
    for name in (*split["val"], split["test"][0]):
        shutil.copytree(data / split["train"][0], data / name, dirs_exist_ok=True)
    for name in split["test"][1:]:
        shutil.copytree(data / split["train"][1], data / name, dirs_exist_ok=True)
    with pytest.raises(DatasetError, match=r"trained on 20 of the 20 classes; at least 4 others are needed"):
        continued(start, data, tmp_path / "run")


@pytest.mark.usefixtures("without_steps")
def test_other_data_is_split_by_the_seed_of_the_run(tmp_path: Path) -> None:
    _, start = start_of(tmp_path)
    write_folders(tmp_path / "elsewhere" / "data", classes=20, images=4, seed=5)
    for folder in (tmp_path / "elsewhere" / "data").iterdir():
        folder.rename(folder.with_name(f"other {folder.name}"))
    split = continued(start, tmp_path / "elsewhere" / "data", tmp_path / "run")
    assert split == by_seed(sorted(name for part in split.values() for name in part), 1)


@pytest.mark.usefixtures("without_steps")
def test_the_card_has_digests_of_all_classes_that_the_weights_were_trained_on(tmp_path: Path) -> None:
    data, start = start_of(tmp_path)
    first = load_dataset(data, IMAGE)["train"].digests()
    assert read(start).card["data"]["train"]["digests"] == sorted(first)
    write_folders(tmp_path / "others", classes=20, images=4, seed=5)
    continued(start, tmp_path / "others", tmp_path / "run")
    second = load_dataset(tmp_path / "others", IMAGE, seed=1)["train"].digests()
    assert read(tmp_path / "run").card["data"]["train"]["digests"] == sorted({*first, *second})


Evaluated = tuple[int, dict[str, Any], str]


def evaluated(capsys: pytest.CaptureFixture[str], data: Path, *options: object) -> Evaluated:
    """Exit code, JSON (empty after an error) and standard error of ``lamanas evaluate`` on one small episode."""
    episode = ("--ways", "2", "--shots", "1", "--queries", "1", "--episodes", "1", "--json")
    code = main(["evaluate", "--data", str(data), *episode, *map(str, options)])
    told = capsys.readouterr()
    return code, json.loads(told.out or "{}"), told.err


@pytest.mark.usefixtures("without_steps")
def test_evaluation_refuses_a_split_with_classes_that_the_model_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, start = start_of(tmp_path, seed=1)
    (start / "split.json").unlink()
    both = set(by_seed(sorted(path.name for path in data.iterdir()), 0)["test"])
    both &= set(by_seed(sorted(path.name for path in data.iterdir()), 1)["train"])
    assert both
    code, _, error = evaluated(capsys, data, "--model", start)
    assert code == 1
    assert f"trained on {len(both)} of the 3 classes of the test split" in error
    assert f"e.g. {min(both)}" in error
    # Under other names, too.
    with_folders_renamed(data, tmp_path / "renamed")
    assert evaluated(capsys, tmp_path / "renamed", "--model", start)[0] == 1


@pytest.mark.usefixtures("without_steps")
def test_evaluation_on_a_renamed_data_set_uses_the_classes_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, start = start_of(tmp_path, seed=1)
    first = evaluated(capsys, data, "--model", start)
    assert first[:1] == (0,)
    assert first[1]["trained_classes"] == 0
    renamed = evaluated(capsys, data.rename(tmp_path / "renamed"), "--model", start)
    assert renamed[1]["accuracy"] == first[1]["accuracy"]
    assert renamed[1]["trained_classes"] == 0
    # Other images under the same class names: not the run's data set.
    write_folders(tmp_path / "others", classes=20, images=4, seed=3)
    assert evaluated(capsys, tmp_path / "others", "--model", start)[1]["trained_classes"] == 0


@pytest.mark.usefixtures("without_steps")
@pytest.mark.parametrize(("split", "expected"), [("train", "14 of the 14"), ("all", "14 of the 20")])
@pytest.mark.parametrize("ablate", [False, True])
def test_evaluation_says_that_classes_asked_for_are_training_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str, expected: str, ablate: bool
) -> None:
    data, start = start_of(tmp_path)
    code, document, told = evaluated(capsys, data, "--model", start, "--split", split, *["--ablate"] * ablate)
    assert code == 0
    assert document["trained_classes"] == 14
    assert f"{expected} classes" in told
    without_digests(start)
    code, document, told = evaluated(capsys, data, "--model", start, "--split", split)
    assert (code, document["trained_classes"], told) == (0, None, "")
