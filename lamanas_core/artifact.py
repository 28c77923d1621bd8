"""Reading artifacts: the adapted classifier of one episode as a self-contained ONNX model."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lamanas_core.backbones.runtime import Backbone, open_backbone
from lamanas_core.image_spec import ImageSpec
from lamanas_core.onnx_runtime import open_session, ort

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
        self,
        session: ort.InferenceSession,
        backbone: Backbone | None,
        classes: tuple[str, ...],
        image: ImageSpec,
        model_version: str,
    ) -> None:
        self._session, self._backbone = session, backbone
        outputs = {output.name for output in session.get_outputs()}
        # Artifacts from before there was ``known`` have ``novelty`` alone; those of a linear head have neither.
        self._answers = [name for name in ("probabilities", "novelty", "known") if name in outputs]
        self.classes = classes
        self.image = image
        self.model_version = model_version

    @classmethod
    def from_bytes(cls, data: bytes, *, threads: int = 1) -> "Classifier":
        """Open an artifact for inference on the CPU with ``threads`` threads. Raises ArtifactError, and
        BackboneError for that of its meta-model."""
        try:
            session = open_session(data, threads=threads)
            metadata = session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise ArtifactError(f"not an ONNX model: {error}") from None
        if metadata.get("format") != FORMAT:
            raise ArtifactError(f"not a LAMANAS artifact: its format is {metadata.get('format')!r}")
        spec = ImageSpec(**json.loads(metadata["image"]))
        name = metadata.get("backbone")
        backbone = None if name is None else open_backbone(name)
        return cls(session, backbone, tuple(json.loads(metadata["classes"])), spec, metadata["model_version"])

    def logits(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Images, as for ``answers`` -> float32 (n, classes)."""
        rows = [self._run(["logits"], images[i : i + 1])[0] for i in range(len(images))]
        return np.concatenate(rows) if rows else np.zeros((0, len(self.classes)), np.float32)

    def _run(self, outputs: list[str], image: npt.NDArray[Any]) -> list[Any]:
        backbone = self._backbone
        if backbone is None:
            return self._session.run(outputs, {"images": image})  # type: ignore[no-any-return]
        maps = (
            backbone.maps(image)
            if image.dtype == np.uint8
            else backbone.unpacked(image.reshape(-1, image.shape[-1])[0])
        )
        return self._session.run(outputs, {**maps, **backbone.head})  # type: ignore[no-any-return]

    def answers(self, images: npt.NDArray[Any]) -> Answers:
        """uint8 (n, channels, size, size) -> probabilities, novelty and whether each image is known.

        A classifier on a backbone also takes the ``Backbone.packed`` maps of images, (n, m), and leaves out further
        rows of an image, (n, k, m).
        """
        # One image per run: the last bits of a batched product depend on the batch size.
        rows = [self._run(self._answers, images[i : i + 1]) for i in range(len(images))]

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
