"""What a prediction is answered: images decoded, classified and put into JSON, each step where it costs least."""

import hashlib

from app.images import fast_png
from app.images.files import ImageFile
from app.images.pool import Decoder
from app.inference.cache import ClassifierCache, OpenClassifier
from app.schemas import Prediction, Predictions
from app.telemetry.metrics import Metrics
from lamanas_core.images import UInt8Array

# What takes no longer than this is classified in the event loop: to hand it to a thread and back costs more, and a
# process has little else to do while it computes.
AT_ONCE_S = 0.002


async def answer(
    decoder: Decoder,
    classifiers: ClassifierCache,
    metrics: Metrics,
    id: str,
    loaded: OpenClassifier,
    files: list[ImageFile],
) -> str:
    """The body of the answer, in JSON. Raises Problem, naming the image, for one that cannot be read."""

    def classified(images: UInt8Array) -> str:
        return _predictions(metrics, id, loaded, images).model_dump_json()

    spec = loaded.classifier.image
    if len(files) * loaded.seconds > AT_ONCE_S:
        images = await decoder.arrays(files, spec)
        return await classifiers.run(lambda: classified(images))
    small = fast_png.decoded(files, spec)
    return classified(await decoder.arrays(files, spec) if small is None else small)


def _predictions(metrics: Metrics, id: str, loaded: OpenClassifier, images: UInt8Array) -> Predictions:
    classes = loaded.classifier.classes
    with metrics.prediction_seconds.time():
        rows, novelty = loaded.classifier.answers(images)
    metrics.predictions.inc(len(images))
    predictions = []
    for number, row in enumerate(rows.tolist()):
        best = max(range(len(classes)), key=row.__getitem__)
        probabilities = dict(zip(classes, row, strict=True))
        predictions.append(
            Prediction(
                label=classes[best],
                probability=row[best],
                probabilities=probabilities,
                novelty=None if novelty is None else float(novelty[number]),
            )
        )
    return Predictions(episode_id=id, model_version=loaded.classifier.model_version, predictions=predictions)


def etag_of(id: str, loaded: OpenClassifier, files: list[ImageFile]) -> str:
    """Changes with the episode, its classifier or the images."""
    total = hashlib.sha256(f"{id} {loaded.digest}".encode())
    for file in files:
        total.update(len(file.data).to_bytes(8, "big"))
        total.update(file.data)
    return f'"{total.hexdigest()[:32]}"'
