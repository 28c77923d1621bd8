"""Opens a classifier with another runtime, in a process of its own: ``open_with.py RUNTIME MODEL IMAGES ANSWERS``.

IMAGES: a .npy file, uint8 (n, c, h, w). ANSWERS: a .npz file with the logits, the probabilities and the novelty of each
image, and the runtime's version.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

NAMES = ("logits", "probabilities", "novelty")
Opened = tuple[str, Callable[[np.ndarray], Any]]


def onnxruntime(model: str) -> Opened:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return onnxruntime.__version__, lambda image: session.run(list(NAMES), {"images": image})


def opencv(model: str) -> Opened:
    import cv2

    net = cv2.dnn.readNetFromONNX(model)

    def answers(image: np.ndarray) -> Any:
        net.setInput(image.astype(np.float32), "images")
        return net.forward(list(NAMES))

    return cv2.__version__, answers


def openvino(model: str) -> Opened:
    import openvino

    compiled = openvino.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    )
    return openvino.__version__, lambda image: [compiled(image)[name] for name in NAMES]


if __name__ == "__main__":
    runtime, model, images, to = sys.argv[1:]
    version, answers = {"onnxruntime": onnxruntime, "opencv": opencv, "openvino": openvino}[runtime](model)
    rows = [[np.ravel(answer) for answer in answers(image[None])] for image in np.load(images)]
    logits, probabilities, novelty = (np.stack(column) for column in zip(*rows, strict=True))
    np.savez(to, version=version, logits=logits, probabilities=probabilities, novelty=novelty)
