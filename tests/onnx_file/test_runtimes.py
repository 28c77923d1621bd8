"""Other runtimes open the file as it is and give the same answers."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from lamanas_core.adapt.adapted import adapt
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.artifact import Classifier
from lamanas_core.backbones.joined import joined
from lamanas_core.config import Calibration, Novelty
from lamanas_core.image_spec import ImageSpec
from lamanas_core.meta_model import MetaModel, shipped
from lamanas_core.search.operations import OPERATIONS
from tests.learning.helpers import MINIATURE, glyph_support
from tests.onnx_file import runtimes
from tests.onnx_file.open_with import NAMES
from tests.onnx_file.page import run_in_node
from tests.onnx_file.runtimes import installed

TOLERANCE = 1e-4
# What ONNX Runtime 1.20 and OpenCV 4.10 know; it also decides which other runtimes can open the file.
OPSET, IR_VERSION = 18, 9


def with_all_operations() -> MetaModel:
    """An untrained model of colour images, with each operation, the Gaussian head and a measure of novelty."""
    spec = ImageSpec(size=20, channels=3, normalise_polarity=False)
    network = replace(MINIATURE.network, image=spec, channels=4, head="gaussian", operations=tuple(sorted(OPERATIONS)))
    calibration = Calibration(1.5, Novelty(centre=-1.0, slope=2.0, threshold=0.6, spread=0.5))
    config = replace(MINIATURE, network=network, calibration=calibration)
    return MetaModel(initial_parameters(config, 0), {"config": config.to_json()})


def of_three_classes(kind: str) -> tuple[MetaModel, np.ndarray, np.ndarray]:
    """A meta-model, four images of each class, and their labels."""
    if kind == "drawings":
        return MetaModel.from_bytes(*shipped()), *glyph_support(3, [4] * 3, seed=1)
    model = MetaModel.from_bytes(*shipped("photos")) if kind == "photos" else with_all_operations()
    rng, spec = np.random.default_rng(0), model.config.network.image
    coarse = rng.integers(0, 256, (12, 5, 5, spec.channels), dtype=np.uint8)
    side = (spec.size, spec.size)
    images = np.stack([np.asarray(Image.fromarray(image).resize(side)).transpose(2, 0, 1) for image in coarse])
    images[3::4] = rng.integers(0, 256, images[3::4].shape)  # unlike the others, and not in the support set
    return model, images, np.arange(12) % 3


@pytest.fixture(scope="module", params=["drawings", "photos", "all operations"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model.onnx`` as it is downloaded, adapted to half of the images, and all in ``images.npy``."""
    model, images, labels = of_three_classes(request.param)
    half = np.arange(12) % 4 < 2
    adapted = adapt(
        model, images[half], labels[half], list("abc"), steps=1, seed=0, device="cpu", on_step=lambda *_: None
    )
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "model.onnx").write_bytes(joined(adapted.artifact))
    np.save(folder / "images.npy", images)
    return folder


def check(folder: Path, found: dict[str, np.ndarray]) -> None:
    """The answers of another runtime equal those of this one; logits relative to the largest."""
    classifier = Classifier.from_bytes((folder / "model.onnx").read_bytes())
    images = np.load(folder / "images.npy")
    answers = classifier.answers(images)
    assert answers.novelty is not None
    assert np.ptp(answers.novelty) > 0.01
    logits = classifier.logits(images)
    assert np.abs(found["logits"] - logits).max() <= TOLERANCE * max(1, np.abs(logits).max())
    assert np.abs(found["probabilities"] - answers.probabilities).max() <= TOLERANCE
    assert np.abs(found["novelty"].ravel() - answers.novelty).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("runtime", "module", "version"),
    [("onnxruntime", "onnxruntime", "1.20.0"), ("opencv", "cv2", "4.10.0"), ("openvino", "openvino", "2026.4.1")],
)
def test_another_runtime_gives_the_same_answers(runtime: str, module: str, version: str, folder: Path) -> None:
    installed(runtimes.FOLDER / module)
    program = Path(__file__).with_name("open_with.py")
    done = subprocess.run(
        [sys.executable, program, runtime, "model.onnx", "images.npy", f"{runtime}.npz"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(runtimes.FOLDER)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = dict(np.load(folder / f"{runtime}.npz"))
    assert str(found["version"]).startswith(version)
    check(folder, found)


def test_onnxruntime_web_gives_the_same_answers(folder: Path) -> None:
    web = installed(runtimes.ONNXRUNTIME_WEB)
    images = np.load(folder / "images.npy")
    code = f"""
        import * as ort from {json.dumps(web.as_uri())};
        const session = await ort.InferenceSession.create("model.onnx");
        async function answer(values) {{
          const images = new ort.Tensor("uint8", Uint8Array.from(values), {[1, *images.shape[1:]]});
          const found = await session.run({{ images }});
          return {list(NAMES)}.map((name) => [...found[name].data]);
        }}
    """
    answers = run_in_node(folder, code, images.reshape(len(images), -1).tolist())
    columns = zip(*answers, strict=True)
    check(folder, {name: np.array(column) for name, column in zip(NAMES, columns, strict=True)})


def test_the_file_is_of_a_version_that_the_oldest_runtimes_know(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    assert model.ir_version <= IR_VERSION
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
