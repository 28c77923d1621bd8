"""Reading artifacts: the adapted classifier of one episode as a self-contained ONNX model."""

import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lamanas_core.image_spec import ImageSpec

# From version 1.29 on, onnxruntime's wheels report every session to their vendor and write a file to the home
# directory, unless this variable is set before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

FORMAT = "lamanas-classifier-1"


class ArtifactError(ValueError):
    """The bytes are not a LAMANAS artifact."""


@dataclass(frozen=True)
class Answers:
    """A classifier's answers to n images.

    ``probabilities``: float32 (n, classes). ``novelty``: float32 (n,) in 0..1, the probability that an image belongs to
    none of the classes, given that half of all images do not. ``known``: bool (n,), false for images whose novelty
    exceeds the threshold. The latter two are None if the classifier does not measure novelty.
    """

    probabilities: npt.NDArray[np.float32]
    novelty: npt.NDArray[np.float32] | None
    known: npt.NDArray[np.bool_] | None


class Classifier:
    """The adapted classifier of one episode. Thread-safe.

    The prediction for an image does not depend on the other images of the call. ``classes``: the class names in the
    order of the output columns; ``image``: the images it takes; ``model_version``: the meta-model it was adapted from.
    """

    def __init__(
        self, session: ort.InferenceSession, classes: tuple[str, ...], image: ImageSpec, model_version: str
    ) -> None:
        self._session = session
        outputs = {output.name for output in session.get_outputs()}
        # Artifacts from before there was ``known`` have ``novelty`` alone; those of a linear head have neither.
        self._answers = [name for name in ("probabilities", "novelty", "known") if name in outputs]
        self.classes = classes
        self.image = image
        self.model_version = model_version

    @classmethod
    def from_bytes(cls, data: bytes, *, threads: int = 1) -> "Classifier":
        """Open an artifact for inference on the CPU with ``threads`` threads. Raises ArtifactError."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            metadata = session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise ArtifactError(f"not an ONNX model: {error}") from None
        if metadata.get("format") != FORMAT:
            raise ArtifactError(f"not a LAMANAS artifact: its format is {metadata.get('format')!r}")
        spec = ImageSpec(**json.loads(metadata["image"]))
        return cls(session, tuple(json.loads(metadata["classes"])), spec, metadata["model_version"])

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, channels, size, size) -> float32 (n, classes)."""
        rows = [self._session.run(["logits"], {"images": images[i : i + 1]})[0] for i in range(len(images))]
        return np.concatenate(rows) if rows else np.zeros((0, len(self.classes)), np.float32)

    def answers(self, images: npt.NDArray[np.uint8]) -> Answers:
        """uint8 (n, channels, size, size) -> probabilities, novelty and whether each image is known."""
        # One image per run: the last bits of a batched product depend on the batch size.
        rows = [self._session.run(self._answers, {"images": images[i : i + 1]}) for i in range(len(images))]

        def column(name: str, empty: npt.NDArray[Any]) -> Any:
            at = self._answers.index(name)
            return np.concatenate([row[at] for row in rows]) if rows else empty

        probabilities = column("probabilities", np.zeros((0, len(self.classes)), np.float32))
        novelty = known = None
        if "novelty" in self._answers:
            # The runtime's sigmoid can exceed 1 by one unit in the last place.
            novelty = np.minimum(column("novelty", np.zeros(0, np.float32)), 1)
        if "known" in self._answers:
            known = column("known", np.zeros(0, np.bool_))
        return Answers(probabilities, novelty, known)

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, channels, size, size) -> float32 (n, classes), each row summing to 1."""
        return self.answers(images).probabilities
