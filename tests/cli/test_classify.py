"""``lamanas classify``: a downloaded classifier at work, without a service and without torch."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from cli.main import main
from lamanas_core.adapt.adapted import adapt
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.artifact import Classifier
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import load
from lamanas_core.meta_model import MetaModel
from tests.app.playing import classifier, png
from tests.conftest import ROOT
from tests.learning.brief_training import SMALLEST

CLASSES = ("upper left", "upper right", "lower left")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A classifier of the quarter in which a square lies, which measures no novelty."""
    path = tmp_path / "model.onnx"
    path.write_bytes(classifier(CLASSES))
    return path


@pytest.fixture
def drawings(tmp_path: Path) -> list[Path]:
    """A drawing of each class."""
    files = [tmp_path / f"{kind}.png" for kind in range(len(CLASSES))]
    for kind, file in enumerate(files):
        file.write_bytes(png(kind))
    return files


def classify(*arguments: object) -> int:
    return main(["classify", *map(str, arguments)])


def test_each_image_gets_its_label_and_probability(
    model: Path, drawings: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(model, *drawings) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["image", "label", "probability", "next", "best"]
    for row, file, label in zip(rows, drawings, CLASSES, strict=True):
        assert row.startswith(f"{file}  {label} ")
        assert " %" in row


def test_json_has_the_fields_of_predict(model: Path, drawings: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    model.write_bytes(classifier(CLASSES, novelty_logit=2.0))
    assert classify(model, drawings[1], "--json") == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["image"] == str(drawings[1])
    assert found["label"] == "upper right"
    assert list(found["probabilities"]) == list(CLASSES)
    assert found["probability"] == max(found["probabilities"].values())
    assert found["novelty"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert found["known"] is False


def test_an_image_of_no_class_is_called_that(
    model: Path, drawings: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model.write_bytes(classifier(CLASSES, novelty_logit=2.0))
    assert classify(model, drawings[0]) == 0
    assert "none of these? (upper left)" in capsys.readouterr().out
    model.write_bytes(classifier(CLASSES))
    assert classify(model, drawings[0], "--json") == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["novelty"], found["known"]) == (None, None)


def test_the_images_of_a_folder_are_classified_in_natural_order(
    model: Path, drawings: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "asked"
    for number, place in ((2, "10.png"), (1, "2.png"), (1, "_unlabelled/1.png"), (0, "deep/er/1.png"), (0, ".x.png")):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(drawings[number], folder / place)
    (folder / "notes.txt").write_text("of these")
    assert classify(model, drawings[0], folder, "--json") == 0
    printed = capsys.readouterr()
    found = [(Path(row["image"]), row["label"]) for row in json.loads(printed.out)]
    assert found == [
        (drawings[0], "upper left"),
        (folder / "2.png", "upper right"),
        (folder / "10.png", "lower left"),
        (folder / "_unlabelled/1.png", "upper right"),
        (folder / "deep/er/1.png", "upper left"),
    ]
    assert printed.err == f"note: {folder}: 1 skipped: notes.txt\n"


def test_a_classifier_of_photos_gets_their_middle_in_colour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = ImageSpec(size=16, channels=3, normalise_polarity=False)
    config = replace(SMALLEST, network=replace(SMALLEST.network, image=spec))
    untrained = MetaModel(initial_parameters(config, 0), {"config": config.to_json()})
    rng = np.random.default_rng(0)
    support = rng.integers(0, 256, (4, *spec.shape), dtype=np.uint8)
    adapted = adapt(
        untrained, support, np.arange(4) % 2, ["a", "b"], steps=0, seed=0, device="cpu", on_step=lambda *_: None
    )
    model, photo = tmp_path / "model.onnx", tmp_path / "photo.jpg"
    model.write_bytes(adapted.artifact)
    Image.fromarray(rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)).save(photo)
    assert classify(model, photo, "--json") == 0
    [found] = json.loads(capsys.readouterr().out)
    image = load(photo.read_bytes(), spec, max_pixels=10_000)
    expected = Classifier.from_bytes(adapted.artifact).probabilities(image[None])[0]
    assert found["probabilities"] == dict(zip("ab", expected.tolist(), strict=True))


def test_neither_torch_nor_a_service_is_needed(model: Path, drawings: list[Path], tmp_path: Path) -> None:
    code = (
        "import socket, sys; socket.socket.connect = lambda *_: sys.exit('connects')\n"
        "from cli.main import main; code = main(sys.argv[1:])\n"
        "assert not {'torch', 'celery', 'redis', 'app'} & sys.modules.keys(); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "classify", model, *drawings],
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "nowhere"), "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert all(label in done.stdout for label in CLASSES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{none} {drawing}", "{none}: No such file or directory"),
        ("{drawing} {drawing}", "{drawing}: not an ONNX model"),
        ("{other} {drawing}", "{other}: not a LAMANAS artifact: its format is None"),
        ("{model} {none}", "{none}: No such file or directory"),
        ("{model} {drawing} {damaged}", "{damaged}: the image is truncated or damaged"),
        ("{model} {other}", "{other}: not a PNG, JPEG, WebP, GIF, HEIC, AVIF, BMP or TIFF image"),
        ("{model} {empty}", "{empty} has no images"),
    ],
)
def test_what_cannot_be_read_is_named(
    arguments: str,
    message: str,
    model: Path,
    drawings: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {name: tmp_path / name for name in ("none", "other", "damaged", "empty")}
    names |= {"model": model, "drawing": drawings[0]}
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", [value], [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), names["other"])
    names["damaged"].write_bytes(png(0)[:-40])
    names["empty"].mkdir()
    assert classify(*(part.format_map(names) for part in arguments.split())) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"lamanas classify: {message.format_map(names)}")
    assert printed.err.count("\n") == 1
