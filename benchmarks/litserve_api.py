"""Serves the artifact with LitServe. A separate module, since LitServe's worker process imports the class again, and
litserve is installed only for benchmarks."""

from pathlib import Path
from typing import Any

import litserve
import numpy as np

from benchmarks.contestants import arrays, predictions
from lamanas_core.artifact import Classifier
from lamanas_core.images import UInt8Array

# The maximum batch, the highest number of concurrent requests, and the time to wait for it, about that of one image.
BATCH, BATCH_SECONDS = 32, 0.001


class One(litserve.LitAPI):  # type: ignore[misc]
    """LitServe's default: the worker decodes, classifies and encodes one request at a time."""

    def __init__(self, artifact: Path, **batching: float) -> None:
        super().__init__(**batching)
        self._artifact = artifact

    def setup(self, device: str) -> None:
        self._classifier = Classifier.from_bytes(self._artifact.read_bytes())

    def decode_request(self, request: dict[str, Any]) -> UInt8Array:
        return arrays(self._classifier, request["images"])

    def predict(self, x: Any) -> Any:
        return predictions(self._classifier, x)

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {"predictions": output}


class Batched(One):
    """Classifies all waiting requests in one call."""

    def __init__(self, artifact: Path) -> None:
        super().__init__(artifact, max_batch_size=BATCH, batch_timeout=BATCH_SECONDS)

    def batch(self, inputs: list[UInt8Array]) -> list[UInt8Array]:
        return inputs

    def predict(self, x: list[UInt8Array]) -> list[list[dict[str, Any]]]:
        ends = np.cumsum([len(images) for images in x])
        found = predictions(self._classifier, np.concatenate(x))
        return [found[end - len(images) : end] for images, end in zip(x, ends, strict=True)]

    def unbatch(self, output: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        return output


def serve(artifact: Path, host: str, port: int, *, batched: bool) -> None:
    """Serves with one worker until the process is terminated."""
    api = Batched(artifact) if batched else One(artifact)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(host=host, port=port, num_api_servers=1, log_level="warning", generate_client_file=False)
