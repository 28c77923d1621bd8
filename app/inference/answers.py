"""Decodes and classifies the images of a request, in the event loop if that is fast, otherwise in other threads."""

import hashlib

import numpy as np

from app.images import fast_png
from app.images.files import ImageFile
from app.images.pool import Decoder
from app.inference.cache import ClassifierCache, OpenClassifier
from app.schemas.responses import Prediction, Predictions
from app.telemetry.metrics import Metrics
from lamanas_core.images import UInt8Array

# Images that take no longer than this together are classified in the event loop: passing them to a thread takes longer,
# and the event loop cannot do much else while that thread computes.
EVENT_LOOP_S = 0.002


async def predictions(
    decoder: Decoder,
    classifiers: ClassifierCache,
    metrics: Metrics,
    key: str,
    id: str,
    loaded: OpenClassifier,
    files: list[ImageFile],
) -> str:
    """The body of the response, in JSON, for a request of this key. Raises Problem, which names the image, for one that
    cannot be read."""
    spec = loaded.classifier.image
    small = fast_png.decoded(files, spec) if _is_quick(loaded, len(files)) else None
    images = await decoder.arrays(key, files, spec) if small is None else small
    return await predictions_of(classifiers, metrics, id, loaded, images)


async def predictions_of(
    classifiers: ClassifierCache, metrics: Metrics, id: str, loaded: OpenClassifier, images: UInt8Array
) -> str:
    """As ``predictions``, of images that are decoded: uint8 (n, *shape of the classifier's images)."""

    def classify() -> str:
        return _classify(metrics, id, loaded, images).model_dump_json()

    return classify() if _is_quick(loaded, len(images)) else await classifiers.run(classify)


def _is_quick(loaded: OpenClassifier, images: int) -> bool:
    return images * loaded.seconds <= EVENT_LOOP_S


def _classify(metrics: Metrics, id: str, loaded: OpenClassifier, images: UInt8Array) -> Predictions:
    classes = loaded.classifier.classes
    with metrics.prediction_seconds.time():
        answers = loaded.classifier.answers(images)
    unknown = None if answers.known is None else len(images) - int(np.count_nonzero(answers.known))
    metrics.classified(loaded.classifier.model_version, len(images), unknown)
    found = []
    for number, row in enumerate(answers.probabilities.tolist()):
        best = max(range(len(classes)), key=row.__getitem__)
        probabilities = dict(zip(classes, row, strict=True))
        found.append(
            Prediction(
                label=classes[best],
                probability=row[best],
                probabilities=probabilities,
                novelty=None if answers.novelty is None else float(answers.novelty[number]),
                known=None if answers.known is None else bool(answers.known[number]),
            )
        )
    return Predictions(episode_id=id, model_version=loaded.classifier.model_version, predictions=found)


def etag_of(id: str, loaded: OpenClassifier, files: list[ImageFile]) -> str:
    """Changes with the episode, its classifier or the images."""
    total = hashlib.sha256(f"{id} {loaded.digest}".encode())
    for file in files:
        total.update(len(file.data).to_bytes(8, "big"))
        total.update(file.data)
    return f'"{total.hexdigest()[:32]}"'
