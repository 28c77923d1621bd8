"""``python -m benchmarks.contestants plain|litserve|litserve-batched PORT ARTIFACT``: servers to compare the app with.

Each serves one artifact on loopback, with the app's preprocessing, ONNX Runtime settings and responses, but without
its other features: keys, metrics, episodes, and separate processes for decoding.
"""

import base64
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from lamanas_core.artifact import Classifier
from lamanas_core.images import UInt8Array, load

HOST = "127.0.0.1"
MAX_PIXELS = 16_000_000


class Images(BaseModel):
    """The body of ``POST /predict``, as the app accepts it; the episode is ignored, as only one artifact is served."""

    episode_id: str
    images: list[str]


def arrays(classifier: Classifier, images: Sequence[str]) -> UInt8Array:
    """Image files in base64 or base64url, decoded: uint8 (n, channels, size, size)."""
    files = [base64.b64decode(image + "=" * (-len(image) % 4), altchars=_altchars(image)) for image in images]
    return np.stack([load(file, classifier.image, max_pixels=MAX_PIXELS) for file in files])


def _altchars(image: str) -> bytes | None:
    return b"-_" if "-" in image or "_" in image else None


def predictions(classifier: Classifier, images: UInt8Array) -> list[dict[str, Any]]:
    """The app's ``predictions``, one for each image, in the same order."""
    answers = classifier.answers(images)
    rows, novelty, known = answers.probabilities, answers.novelty, answers.known
    return [
        {
            "label": classifier.classes[best := int(row.argmax())],
            "probability": float(row[best]),
            "probabilities": dict(zip(classifier.classes, row.tolist(), strict=True)),
            "novelty": None if novelty is None else float(novelty[number]),
            "known": None if known is None else bool(known[number]),
        }
        for number, row in enumerate(rows)
    ]


def plain_app(artifact: bytes) -> FastAPI:
    """A minimal app: one process that does everything in its event loop."""
    app = FastAPI()
    classifier = Classifier.from_bytes(artifact)

    @app.get("/predict")
    async def in_url(episode_id: str, image: list[str] = Query()) -> JSONResponse:  # noqa: B008
        return JSONResponse({"predictions": predictions(classifier, arrays(classifier, image))})

    @app.post("/predict")
    async def in_body(body: Images) -> JSONResponse:
        return JSONResponse({"predictions": predictions(classifier, arrays(classifier, body.images))})

    return app


def main() -> None:
    """Serves until the process is terminated."""
    kind, port, artifact = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if kind == "plain":
        uvicorn.run(plain_app(artifact.read_bytes()), host=HOST, port=port, log_level="warning", access_log=False)
    else:
        from benchmarks import litserve_api

        litserve_api.serve(artifact, HOST, port, batched=kind == "litserve-batched")


if __name__ == "__main__":
    main()
