"""Lake's split of Omniglot, and the one-shot runs: trained on the background alphabets alone, tested on the others."""

import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cli.main import main
from lamanas_core import images
from lamanas_core.artifact import Classifier
from lamanas_core.data.episodes import Episode
from lamanas_core.data.folders import lake_split, load_all, load_dataset
from lamanas_core.data.one_shot_runs import load_runs
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.data.splits import LAKE_VALIDATION, DatasetError, Split
from lamanas_core.devices import choose_device
from lamanas_core.image_spec import MAX_PIXELS
from lamanas_core.measure import one_shot_runs
from lamanas_core.measure.one_shot_runs import error_on_runs
from lamanas_core.meta_model import read, write
from lamanas_core.train import loop, run_folder
from tests.learning.brief_training import SMALLEST, brief, brief_recipe, miniature, trained
from tests.learning.test_evaluation import PREDICTED, FixedClassifier, model

IMAGE = SMALLEST.network.image
ALPHABETS = {"images_background/Greek": 6, "images_background/Latin": 4, "images_evaluation/Oriya": 5}
# The characters of the training images of each run, and for each test image the training image of its character.
RUNS = {"run01": ([0, 1, 2], [2, 0, 1]), "run02": ([4, 3], [0, 1])}


def write_data(folder: Path) -> None:
    """A small Omniglot with the one-shot runs in ``RUNS``: images 0 of a character for training, and 1 to test."""
    for seed, (alphabet, count) in enumerate(ALPHABETS.items()):
        write_folders(folder / alphabet, classes=count, images=3, seed=seed)
    for name, (trained_on, truths) in RUNS.items():
        run = folder / "one_shot_runs" / name
        for part in ("training", "test"):
            (run / part).mkdir(parents=True)
        lines = []
        for number, character in enumerate(trained_on):
            shutil.copy(drawing(folder, character, 0), run / "training" / f"class{number:02d}.png")
        for number, truth in enumerate(truths):
            shutil.copy(drawing(folder, trained_on[truth], 1), run / "test" / f"item{number:02d}.png")
            lines.append(f"{name}/test/item{number:02d}.png {name}/training/class{truth:02d}.png\n")
        (run / "class_labels.txt").write_text("".join(lines))
        (run / "training" / "._class00.png").write_bytes(b"left by a system")


def drawing(folder: Path, character: int, number: int) -> Path:
    return folder / "images_evaluation" / "Oriya" / f"glyph{character:03d}" / f"{number:02d}.png"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``omniglot``, see ``write_data``, and ``run``, with a model trained on Lake's split of it."""
    folder = tmp_path_factory.mktemp("original")
    write_data(folder / "omniglot")
    train(folder / "omniglot", folder / "run")
    return folder


@pytest.fixture
def data(original: Path, tmp_path: Path) -> Path:
    """A copy of the small Omniglot, for one test."""
    return shutil.copytree(original / "omniglot", tmp_path / "omniglot")


@pytest.fixture
def lake_model(original: Path, tmp_path: Path) -> Path:
    """A copy of the folder of the model, for one test."""
    return shutil.copytree(original / "run", tmp_path / "run")


def train(data: Path, run: Path, **options: object) -> None:
    with miniature():
        options = {"warm_up_epochs": 0, "meta_epochs": 1, "split": "lake"} | options
        write(trained(brief(**options), data, run), run)


def with_digests(run: Path, digests: list[str]) -> None:
    """Let the card in ``run`` say that the model was trained on the classes with these ``digests``."""
    card = json.loads((run / "model.json").read_text())
    card["data"]["train"]["digests"] = digests
    (run / "model.json").write_text(json.dumps(card))


def digests_of(data: Path, part: Split) -> list[str]:
    return list(load_dataset(data, IMAGE, split={part: lake_split(data)[part]})[part].digests())


def started_elsewhere(run: Path) -> None:
    """Let the card in ``run`` be that of a training that started from another model without ``--split lake``."""
    card = json.loads((run / "model.json").read_text())
    card["started_from"] = "0123456789abcdef"
    del card["training"]["split"]
    (run / "model.json").write_text(json.dumps(card))


def evaluated(capsys: pytest.CaptureFixture[str], data: Path, run: Path, *options: str) -> tuple[int, str, str]:
    code = main(["evaluate", "--data", str(data), "--model", str(run), "--one-shot-runs", *options])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_lakes_split_of_omniglot_trains_and_validates_on_whole_background_alphabets(omniglot: Path) -> None:
    split = lake_split(omniglot)
    assert {part: len(names) for part, names in split.items()} == {"train": 792, "val": 172, "test": 659}
    parts = {part: {name.split("/")[0] for name in names} for part, names in split.items()}
    assert parts == {"train": {"images_background"}, "val": {"images_background"}, "test": {"images_evaluation"}}
    validated = Counter(name.split("/")[1] for name in split["val"])
    assert set(validated) == set(LAKE_VALIDATION)
    assert min(validated.values()) >= 20  # for 20-way episodes within an alphabet
    assert not {name.split("/")[1] for name in split["train"]} & set(validated)


def test_a_training_with_lakes_split_uses_nothing_of_the_evaluation_alphabets(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, brief_options = tmp_path / "run", ["--warm-up-epochs", "0", "--meta-epochs", "1", "--meta-batch", "1"]
    monkeypatch.setattr(loop, "recipe_for", lambda preset: brief_recipe())
    with miniature():
        arguments = ["train", "--data", str(data), "--run", str(run), "--preset", "tiny", "--split", "lake"]
        assert main([*arguments, "--ways", "3", "--shots", "1", *brief_options]) == 0
    assert run_folder.read_split(run) == {
        "train": [f"images_background/Greek/glyph00{number}" for number in range(6)],
        "val": [f"images_background/Latin/glyph00{number}" for number in range(4)],
        "test": [f"images_evaluation/Oriya/glyph00{number}" for number in range(5)],
    }
    card = read(run).card
    assert card["training"]["split"] == "lake"
    assert card["data"]["train"]["digests"] == sorted(digests_of(data, "train"))


def test_a_folder_with_a_run_on_another_split_is_refused(data: Path, tmp_path: Path) -> None:
    classes = load_all(data, IMAGE)
    run_folder.write_split(tmp_path / "run", data, {"train": classes, "val": classes, "test": classes})
    with pytest.raises(ValueError, match="run contains a run with a different split"):
        train(data, tmp_path / "run")


def test_a_training_with_lakes_split_starts_from_models_that_do_not_know_what_is_held_out(
    data: Path, lake_model: Path, tmp_path: Path
) -> None:
    train(data, tmp_path / "next", start=str(lake_model))
    assert read(tmp_path / "next").card["data"]["train"]["digests"] == sorted(digests_of(data, "train"))
    train(data, tmp_path / "last", start=str(tmp_path / "next"))
    with_digests(lake_model, [])
    with pytest.raises(ValueError, match="does not record all classes that it was trained on"):
        train(data, tmp_path / "unknown", start=str(lake_model))
    started_elsewhere(tmp_path / "next")
    with pytest.raises(ValueError, match="does not record all classes that it was trained on"):
        train(data, tmp_path / "unknown", start=str(tmp_path / "next"))


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_training_with_lakes_split_does_not_start_from_a_model_that_knows_what_is_held_out(
    data: Path, lake_model: Path, tmp_path: Path, part: Split
) -> None:
    with_digests(lake_model, [*digests_of(data, "train"), digests_of(data, part)[1]])
    name = lake_split(data)[part][1]
    with pytest.raises(ValueError, match=f"the model was trained on 1 of the classes held out, e.g. {name}"):
        train(data, tmp_path / "next", start=str(lake_model))


@pytest.mark.parametrize("zipped", [False, True])
def test_the_support_set_of_a_run_is_its_training_images_and_the_queries_are_its_test_images(
    data: Path, zipped: bool
) -> None:
    if zipped:
        shutil.make_archive(str(data / "one_shot_runs"), "zip", data / "one_shot_runs")
        shutil.rmtree(data / "one_shot_runs")
    runs = load_runs(data, IMAGE)
    assert len(runs) == 2
    for run, (trained_on, truths) in zip(runs, RUNS.values(), strict=True):
        assert run.ways == len(trained_on)
        assert run.support_labels.tolist() == list(range(run.ways))
        assert run.query_labels.tolist() == truths
        for label, character in enumerate(trained_on):
            assert (run.support[label].numpy() == loaded(data, character, 0)).all()
        for query, truth in zip(run.queries, truths, strict=True):
            assert (query.numpy() == loaded(data, trained_on[truth], 1)).all()


def loaded(data: Path, character: int, number: int) -> object:
    return images.load(drawing(data, character, number).read_bytes(), IMAGE, max_pixels=MAX_PIXELS)


def test_the_published_runs_have_20_characters_each(omniglot: Path) -> None:
    if not any((omniglot / name).exists() for name in ("one_shot_runs", "one_shot_runs.zip")):
        pytest.skip("the one-shot runs are not beside Omniglot")
    runs = load_runs(omniglot, IMAGE)
    assert [(run.ways, len(run.support)) for run in runs] == [(20, 20)] * 20
    assert all(sorted(run.query_labels.tolist()) == list(range(20)) for run in runs)


@pytest.mark.parametrize("line", ["run01/test/item00.png", "run01/test/item00.png run01/test/item01.png", ""])
def test_labels_that_name_no_training_image_are_refused(data: Path, line: str) -> None:
    labels = data / "one_shot_runs" / "run01" / "class_labels.txt"
    labels.write_text(line)
    with pytest.raises(DatasetError, match=f"{labels}: each line must have a test image and its training image"):
        load_runs(data, IMAGE)


def test_a_missing_or_damaged_image_of_a_run_is_named(data: Path) -> None:
    file = data / "one_shot_runs" / "run02" / "test" / "item01.png"
    file.write_bytes(b"no image")
    with pytest.raises(DatasetError, match=f"{file}: "):
        load_runs(data, IMAGE)
    file.unlink()
    with pytest.raises(DatasetError, match=f"{file}: .*No such file"):
        load_runs(data, IMAGE)
    for name in RUNS:
        shutil.rmtree(data / "one_shot_runs" / name)
    with pytest.raises(DatasetError, match="contains no folders with a class_labels"):
        load_runs(data, IMAGE)
    (data / "one_shot_runs").rename(data / "elsewhere")
    (data / "one_shot_runs.zip").write_bytes(b"no zip file")
    with pytest.raises(DatasetError, match=r"one_shot_runs\.zip: File is not a zip file"):
        load_runs(data, IMAGE)


def test_the_error_of_the_runs_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    def adapt_to(model: object, run: object, *, steps: int | None, **_: object) -> SimpleNamespace:
        asked.append(steps)
        return SimpleNamespace(artifact=bytes([len(asked) - 1]))

    monkeypatch.setattr(one_shot_runs, "adapt_to", adapt_to)
    monkeypatch.setattr(Classifier, "from_bytes", lambda artifact: FixedClassifier(artifact[0]))
    empty, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1, 1])
    run = Episode(empty[:2], torch.tensor([0, 1]), empty, labels, 2)
    done: list[int] = []
    found = error_on_runs(model(), [run, run], steps=7, device="cpu", on_run=done.append)
    assert PREDICTED == ([0, 0, 1, 1], [0, 1, 0, 0])  # 4 of 4 and 1 of 4 are right
    assert found["errors"] == [0, 0.75]
    assert found["error"] == pytest.approx(0.375)
    assert found["ci95"] == pytest.approx(1.96 * 0.375)
    assert asked == [7, 7]
    assert done == [1, 2]


def test_a_model_of_lakes_split_is_evaluated_on_the_runs(
    data: Path, lake_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = evaluated(capsys, data, lake_model, "--json", "--steps", "0")
    assert code == 0
    found = json.loads(out)
    assert len(found["errors"]) == found["runs"] == 2
    expected = error_on_runs(
        read(lake_model), load_runs(data, IMAGE), steps=0, device="cpu", on_run=lambda number: None
    )
    assert {name: found[name] for name in expected} == expected
    assert (found["steps"], found["trained_classes"], found["device"]) == (0, 0, choose_device("auto"))
    assert found["model_version"] == read(lake_model).version
    _, out, _ = evaluated(capsys, data, lake_model, "--steps", "0")
    assert out.startswith(f"error {100 * found['error']:.2f} % ")


def test_a_model_that_may_know_the_characters_of_the_runs_is_refused(
    data: Path, lake_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_digests(lake_model, [digests_of(data, "test")[3]])
    code, out, error = evaluated(capsys, data, lake_model)
    assert (code, out) == (1, "")
    assert "trained on 1 of the classes held out, e.g. images_evaluation/Oriya/glyph003" in error
    with_digests(lake_model, digests_of(data, "train"))
    assert evaluated(capsys, data, lake_model)[0] == 0
    started_elsewhere(lake_model)
    code, out, error = evaluated(capsys, data, lake_model)
    assert (code, out) == (1, "")
    assert "does not record all classes that it was trained on" in error
    with_digests(lake_model, [])
    code, out, error = evaluated(capsys, data, lake_model)
    assert (code, out) == (1, "")
    assert "does not record all classes that it was trained on" in error
