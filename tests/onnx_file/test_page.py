"""The programs of docs/onnx.md give the service's answers."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from cli.main import main
from lamanas_core.adapt.adapted import adapt
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array, load
from lamanas_core.meta_model import MetaModel, shipped
from tests.app import playing
from tests.app.playing import Worker, b64
from tests.app.test_episodes import create_episode
from tests.end_to_end.characters import Task, draw_task
from tests.images.test_image_files import swapped_profile
from tests.onnx_file import asked
from tests.onnx_file.page import JAVASCRIPT, PYTHON, classified_in_node, classified_in_python, prepared_in_node

MAX_PIXELS = 2_000_000
PHOTOS = ImageSpec(size=56, channels=3, normalise_polarity=False)


@dataclass(frozen=True)
class Asked:
    """A downloaded classifier, files, and the service's predictions for them."""

    model: Path
    files: list[Path]
    answers: list[dict[str, Any]]


@pytest.fixture(scope="module")
def task(omniglot: Path) -> Task:
    return draw_task(omniglot, ways=10, shots=3, queries=6, seed=5)


@pytest.fixture(scope="module")
def files(task: Task, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """60 images of ten characters."""
    return asked.write([file for _, file in task.queries], tmp_path_factory.mktemp("asked"))


@pytest.fixture(scope="module")
def artifact(task: Task) -> bytes:
    """The shipped model's classifier of eight of the characters."""
    images = np.stack([load(file, ImageSpec(), max_pixels=MAX_PIXELS) for _, file in task.support[: 8 * 3]])
    labels, model = np.arange(8).repeat(3), MetaModel.from_bytes(*shipped())
    adapted = adapt(model, images, labels, task.classes[:8], steps=None, seed=0, device="cpu", on_step=lambda *_: None)
    return adapted.artifact


@pytest.fixture
def served(
    client: TestClient,
    worker: Worker,
    artifact: bytes,
    task: Task,
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Asked:
    monkeypatch.setattr(playing, "classifier", lambda classes: artifact)
    support = [{"label": label, "image": b64(file)} for label, file in task.support[: 8 * 3]]
    id = create_episode(client, json={"support": support})["id"]
    worker.adapt(id)
    answer = client.post("/predict", json={"episode_id": id, "images": [b64(file.read_bytes()) for file in files]})
    answers = answer.json()["predictions"]
    assert len(answers) == 60
    assert {answer["known"] for answer in answers} == {True, False}
    model = tmp_path / "model.onnx"
    model.write_bytes(client.get(f"/episodes/{id}/model.onnx").content)
    return Asked(model, files, answers)


def test_the_python_program_gives_the_services_answers(served: Asked) -> None:
    for answer, (label, probability, known) in zip(
        served.answers, classified_in_python(served.model, served.files), strict=True
    ):
        assert (label, known) == (answer["label"], answer["known"])
        assert probability == pytest.approx(answer["probability"], abs=1e-6)


def test_the_javascript_program_gives_the_services_answers(served: Asked) -> None:
    found = classified_in_node(served.model, served.files)
    for file, answer, ours in zip(served.files, served.answers, found, strict=True):
        assert (ours["label"], ours["known"]) == (answer["label"], answer["known"]), file.name
        near = 0.1 if file.name.endswith(asked.LARGE) else 0.01
        assert ours["probability"] == pytest.approx(answer["probability"], abs=near), file.name


def test_the_command_gives_the_services_answers(served: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(served.model), *map(str, served.files), "--json"]) == 0
    for answer, ours in zip(served.answers, json.loads(capsys.readouterr().out), strict=True):
        assert {**ours, "image": None} == {**answer, "image": None}


def preparing(name: str) -> Any:
    names: dict[str, Any] = {}
    exec(compile("\n".join(PYTHON[:2]), "docs/onnx.md", "exec"), names)  # noqa: S102 (a page of this repository)
    return names[name]


@pytest.mark.parametrize(("name", "spec"), [("drawing", ImageSpec()), ("photo", PHOTOS)])
def test_the_python_functions_make_the_services_pixels(name: str, spec: ImageSpec, files: list[Path]) -> None:
    prepare = preparing(name)
    for file in files:
        np.testing.assert_array_equal(prepare(file, spec.size), service_pixels(file, spec), err_msg=file.name)


@pytest.mark.parametrize(("name", "spec"), [("drawing", ImageSpec()), ("photo", PHOTOS)])
def test_the_javascript_functions_make_the_services_pixels_but_for_rounding(
    name: str, spec: ImageSpec, files: list[Path], tmp_path: Path
) -> None:
    files = files[: 3 * len(asked.KINDS)]
    found = prepared_in_node(name, spec.size, files, tmp_path)
    for file, pixels in zip(files, found, strict=True):
        difference = np.abs(np.array(pixels).reshape(spec.shape) - service_pixels(file, spec))
        assert difference.max() <= asked.largest_difference(file), file.name


@pytest.mark.parametrize("kind", ["blank", "balanced", "column", "cmyk", "profile"])
def test_rare_images_become_the_services_pixels(kind: str, tmp_path: Path) -> None:
    """Blank; as much lighter as darker than the background; a pixel wide; with the colours of a press."""
    rng = np.random.default_rng(0)
    path = tmp_path / f"{kind}.{'tif' if kind == 'cmyk' else 'png'}"
    balanced = np.full((40, 40), 128, np.uint8)
    balanced[10:20, 10:20], balanced[20:30, 10:20] = 148, 108
    image = {
        "blank": Image.new("L", (30, 40), 255),
        "balanced": Image.fromarray(balanced),
        "column": Image.fromarray(rng.integers(0, 256, (90, 1), dtype=np.uint8)),
        "cmyk": Image.fromarray(rng.integers(0, 256, (30, 50, 4), dtype=np.uint8), "CMYK"),
        "profile": Image.fromarray(rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)),
    }[kind]
    image.save(path, icc_profile=swapped_profile() if kind == "profile" else None)
    for name, spec in (("drawing", ImageSpec()), ("photo", PHOTOS)):
        np.testing.assert_array_equal(preparing(name)(path, spec.size), service_pixels(path, spec))


def test_the_programs_are_as_short_as_they_can_be() -> None:
    """15 lines of Python under the name of the function, and 30 of JavaScript."""
    for program in PYTHON[:2]:
        (body,) = re.findall(r"^def .*\n((?:    .*\n)+)", program, re.MULTILINE)
        assert len(body.splitlines()) <= 15
    assert len(JAVASCRIPT[0].splitlines()) <= 30


def service_pixels(file: Path, spec: ImageSpec) -> UInt8Array:
    return load(file.read_bytes(), spec, max_pixels=MAX_PIXELS)
