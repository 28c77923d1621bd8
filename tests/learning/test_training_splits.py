"""Training uses only the training split; validation and calibration use only the validation split."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lamanas_core.data.folders import ImageClasses, load_dataset
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.data.sources.omniglot import class_files
from lamanas_core.data.splits import DatasetError, Split, by_seed
from lamanas_core.meta_model import MetaModel
from lamanas_core.train.run_folder import read_curves, read_split
from tests.learning.brief_training import brief, miniature, trained
from tests.learning.helpers import MINIATURE

IMAGE = MINIATURE.network.image


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
            model = trained(brief(warm_up_epochs=1, meta_epochs=1), data, folder / changed / "run")
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
    assert {name: images[0]() for name, images in class_files(tmp_path)} == drawings
