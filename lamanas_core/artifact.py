"""Reading an artifact: the adapted classifier of one episode as an ONNX model that carries all a user needs."""

import json
import os

import numpy as np
import numpy.typing as npt

from lamanas_core.image_spec import ImageSpec

# onnxruntime's wheels, from 1.29 on, tell their maker of every session and keep a file of it in the home directory,
# unless this is set before they are loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

FORMAT = "lamanas-classifier-1"


class ArtifactError(ValueError):
    """The bytes are not an artifact of ours."""


class Classifier:
    """A finished classifier. Thread-safe; each prediction depends on its own image alone."""

    def __init__(
        self, session: ort.InferenceSession, classes: tuple[str, ...], image: ImageSpec, model_version: str
    ) -> None:
        self._session = session
        self._measures_novelty = any(output.name == "novelty" for output in session.get_outputs())
        self.classes = classes
        self.image = image
        self.model_version = model_version

    @classmethod
    def from_bytes(cls, data: bytes, *, threads: int = 1) -> "Classifier":
        """Open an artifact. Raises ArtifactError where it is none."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            metadata = session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime's errors share no base class of its own
            raise ArtifactError(f"not an ONNX model: {error}") from None
        if metadata.get("format") != FORMAT:
            raise ArtifactError(f"not an artifact of LAMANAS: its format is {metadata.get('format')!r}")
        spec = ImageSpec(**json.loads(metadata["image"]))
        return cls(session, tuple(json.loads(metadata["classes"])), spec, metadata["model_version"])

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, channels, size, size) -> float32 (n, classes)."""
        rows = [self._session.run(["logits"], {"images": images[i : i + 1]})[0] for i in range(len(images))]
        return np.concatenate(rows) if rows else np.zeros((0, len(self.classes)), np.float32)

    def answers(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """uint8 (n, channels, size, size) -> ``probabilities`` (n, classes), and ``novelty`` (n,), 0..1: how likely an
        image is of none of the classes where every second one is; None where the classifier does not measure it.
        """
        names = ["probabilities", *(["novelty"] if self._measures_novelty else [])]
        # One image a run: the last bits of a batched product depend on the size of the batch.
        rows = [self._session.run(names, {"images": images[i : i + 1]}) for i in range(len(images))]
        probabilities = (
            np.concatenate([row[0] for row in rows]) if rows else np.zeros((0, len(self.classes)), np.float32)
        )
        if not self._measures_novelty:
            return probabilities, None
        # The runtime's sigmoid goes past 1 by a last bit.
        return probabilities, np.minimum(np.array([row[1][0] for row in rows], np.float32), 1)

    def novelty(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, channels, size, size) -> float32 (n,). Raises ValueError where it is not measured."""
        novelty = self.answers(images)[1]
        if novelty is None:
            raise ValueError("this classifier does not measure novelty")
        return novelty

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, channels, size, size) -> float32 (n, classes), each row summing to 1."""
        return self.answers(images)[0]
