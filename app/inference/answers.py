"""What an episode's classifier says about the images of one request: probabilities, novelty, and the answer's ETag."""

import hashlib
from collections.abc import Sequence

from app.images import fast_png
from app.images.files import ImageFile
from app.images.pool import Decoder
from app.inference.cache import Loaded, Predictor
from app.schemas import Prediction, Predictions
from app.telemetry.metrics import Metrics
from lamanas_core.images import UInt8Array

# Images that take no longer than this together are classified in the event loop: handing them to a thread and back
# costs more, and a process has little else to do while it computes.
AT_ONCE_S = 0.002


class Answers:
    """Decodes the images where that is safe and cheapest, and classifies them."""

    def __init__(self, decoder: Decoder, predictor: Predictor, metrics: Metrics) -> None:
        self._decoder = decoder
        self._predictor = predictor
        self._metrics = metrics

    async def body(self, id: str, loaded: Loaded, files: Sequence[ImageFile]) -> str:
        """The predictions for these files, in their order, as JSON. Raises Problem, naming the image that cannot be
        read."""
        images = None
        at_once = len(files) * loaded.seconds <= AT_ONCE_S
        if at_once:
            images = fast_png.decoded(files, loaded.classifier.image)
        if images is None:
            images = await self._decoder.arrays(files, loaded.classifier.image)
        if at_once:
            return self._json(id, loaded, images)
        return await self._predictor.run(lambda: self._json(id, loaded, images))

    def _json(self, id: str, loaded: Loaded, images: UInt8Array) -> str:
        with self._metrics.prediction_seconds.time():
            rows, novelty = loaded.classifier.answers(images)
        self._metrics.predictions.inc(len(images))
        values = [None] * len(images) if novelty is None else novelty.tolist()
        answered = [
            _prediction(loaded.classifier.classes, row, new) for row, new in zip(rows.tolist(), values, strict=True)
        ]
        version = loaded.classifier.model_version
        return Predictions(episode_id=id, model_version=version, predictions=answered).model_dump_json()


def _prediction(classes: Sequence[str], probabilities: list[float], novelty: float | None) -> Prediction:
    best = max(range(len(classes)), key=probabilities.__getitem__)
    return Prediction(
        label=classes[best],
        probability=probabilities[best],
        probabilities=dict(zip(classes, probabilities, strict=True)),
        novelty=novelty,
    )


def etag(id: str, loaded: Loaded, files: Sequence[ImageFile]) -> str:
    """A strong entity tag that changes with the episode, its classifier and the images."""
    total = hashlib.sha256(f"{id} {loaded.digest}".encode())
    for file in files:
        total.update(len(file.data).to_bytes(8, "big"))
        total.update(file.data)
    return f'"{total.hexdigest()[:32]}"'


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether the client already has the answer with this tag (weak comparison, RFC 9110 section 13.1.2)."""
    sent = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in sent or "*" in sent
