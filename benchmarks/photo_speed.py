"""``lamanas bench photos``: from the files of photos to a classifier, compared with logistic regression."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from benchmarks.measuring import in_turns, machine
from benchmarks.photos import features
from lamanas_core.adapt.adapted import adapt
from lamanas_core.artifact import Classifier
from lamanas_core.images import load
from lamanas_core.meta_model import MetaModel, shipped
from lamanas_core.search.taps import TapNetwork

WAYS = 5
COUNTS = (25, 100)
PHOTO = (4000, 3000)  # 12 megapixels
DISTINCT = 25  # more photos than these are the same again


def measure(runs: int, model: MetaModel | None = None, size: tuple[int, int] = PHOTO) -> dict[str, Any]:
    """For each number of photos, JPEG files of ``size``: from the files to a classifier for 5 classes; and from one
    decoded photo to its answer. Each with ours and with logistic regression on the same network's features.
    """
    model = MetaModel.from_bytes(*shipped("photos")) if model is None else model
    files = phone_photos(DISTINCT, size)
    spec, network = model.config.network.image, model.learner.network
    assert isinstance(network, TapNetwork)
    backbone = network.backbone

    def decoded(count: int) -> np.ndarray:
        return np.stack([load(files[i % DISTINCT], spec, max_pixels=size[0] * size[1]) for i in range(count)])

    def ours(count: int) -> Classifier:
        labels = np.arange(count) % WAYS
        names = [f"class {label}" for label in range(WAYS)]
        nothing: Callable[[int, int, float], None] = lambda step, steps, loss: None  # noqa: E731
        adapted = adapt(model, decoded(count), labels, names, steps=None, seed=0, device="cpu", on_step=nothing)
        return Classifier.from_bytes(adapted.artifact, threads=torch.get_num_threads())

    def regression(count: int) -> Any:
        of_images = FunctionTransformer(lambda images: features(backbone, torch.from_numpy(backbone.packed(images))))
        return make_pipeline(of_images, LogisticRegression(max_iter=500)).fit(decoded(count), np.arange(count) % WAYS)

    found: dict[str, Any] = {**machine(), "photo_bytes": len(files[0])}
    for count in COUNTS:
        compared = {"ours": lambda n=count: ours(n), "logistic_regression": lambda n=count: regression(n)}
        found[f"photos_{count}"] = in_turns(compared, runs)
    classifier, pipeline, image = ours(COUNTS[0]), regression(COUNTS[0]), decoded(1)
    answers = {"ours": lambda: classifier.answers(image), "logistic_regression": lambda: pipeline.predict_proba(image)}
    return found | {"decoding": in_turns({"ours": lambda: decoded(1)}, runs)["ours"], "answer": in_turns(answers, runs)}


def phone_photos(count: int, size: tuple[int, int]) -> list[bytes]:
    """JPEG files of about a byte for three pixels, as phones make them: surfaces, and details of a few pixels."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        surfaces, details = (
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).resize(size)
            for height, width in ((12, 16), (size[1] // 3, size[0] // 3))
        )
        file = io.BytesIO()
        Image.blend(surfaces, details, 0.2).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files
