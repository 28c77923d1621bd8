"""Test doubles and data for tests of the app: images, requests, a classifier, a worker."""

import base64
import io
import json
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from app.store.claims import Claim
from app.store.clients import SyncStore
from app.store.records import EpisodeRecord, WorkerRecord
from lamanas_core.artifact import FORMAT
from lamanas_core.image_spec import ImageSpec
from tests.store.submitting import committed

SPEC = ImageSpec(size=8)
CARD: dict[str, Any] = {
    "config": {"image": asdict(SPEC), "steps": 3, "max_steps": 20},
    "metrics": {"accuracy_20_way_5_shot": 0.97},
}
GENOTYPE: dict[str, Any] = {
    "normal": [{"inputs": [{"source": "input0", "weight": 1.0, "operations": [{"name": "skip", "weight": 1.0}]}]}],
    "reduction": [{"inputs": [{"source": "input1", "weight": 1.0, "operations": [{"name": "skip", "weight": 1.0}]}]}],
}


def pixels(kind: int, seed: int = 0) -> np.ndarray:
    """uint8 (16, 16), white, with a dark square in the quarter ``kind`` (0 to 3); ``seed`` determines its tone."""
    image = np.full((16, 16), 255, dtype=np.uint8)
    row, column = divmod(kind % 4, 2)
    image[8 * row + 2 : 8 * row + 6, 8 * column + 2 : 8 * column + 6] = seed % 50
    return image


def png(kind: int, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(kind, seed)).save(buffer, "PNG")
    return buffer.getvalue()


NOVELTY_THRESHOLD = 0.75


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def support(ways: int = 2, shots: int = 2) -> list[dict[str, str]]:
    return [{"label": f"class {way}", "image": b64(png(way, shot))} for shot in range(shots) for way in range(ways)]


def classifier(
    classes: tuple[str, ...],
    version: str = "0123456789abcdef",
    *,
    novelty_logit: float | None = None,
    backbone: str | None = None,
) -> bytes:
    """An artifact that classifies the kinds of ``pixels`` by their dark quarter; all images have the same novelty.
    ``backbone``: one whose map ``map8`` is the image.
    """
    size = SPEC.size
    weights = np.zeros((size * size, len(classes)), np.float32)
    for kind in range(len(classes)):
        row, column = divmod(kind % 4, 2)
        quarter = np.zeros((size, size), np.float32)
        quarter[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0.002
        weights[:, kind] = quarter.ravel()
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats" if backbone is None else "map8"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", len(classes)])
        for name in ("logits", "probabilities")
    ]
    values = [numpy_helper.from_array(weights, "weights")]
    if novelty_logit is not None:
        nodes += [
            helper.make_node("ReduceMax", ["probabilities"], ["best"], axes=[1], keepdims=0),
            helper.make_node("Sub", ["best", "best"], ["zero"]),
            helper.make_node("Add", ["zero", "novelty_logit"], ["above"]),
            helper.make_node("Sigmoid", ["above"], ["novelty"]),
            helper.make_node("LessOrEqual", ["novelty", "threshold"], ["known"]),
        ]
        values.append(numpy_helper.from_array(np.array(NOVELTY_THRESHOLD, np.float32), "threshold"))
        values.append(numpy_helper.from_array(np.array(novelty_logit, np.float32), "novelty_logit"))
        outputs.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["n"]))
        outputs.append(helper.make_tensor_value_info("known", TensorProto.BOOL, ["n"]))
    taken = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", *SPEC.shape])
    if backbone is not None:
        taken = helper.make_tensor_value_info("map8", TensorProto.FLOAT, ["n", *SPEC.shape])
    graph = helper.make_graph(
        nodes if backbone is None else nodes[1:],
        "quarters",
        [taken],
        outputs,
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    metadata = {
        "format": FORMAT,
        "image": json.dumps(asdict(SPEC)),
        "classes": json.dumps(classes),
        "model_version": version,
        **({} if backbone is None else {"backbone": backbone}),
    }
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class Worker:
    """Performs the steps of an adapt worker one by one."""

    def __init__(self, store: SyncStore) -> None:
        self.store = store

    def send_heartbeat(self) -> None:
        self.store.workers.heartbeat(WorkerRecord(queue="adapt", name="played", device="cpu", started_at=0.0))

    def claim(self, id: str) -> Claim:
        claim = self.store.claims.claim("episode", id, "played")
        assert claim is not None
        return claim

    def step(self, claim: Claim, losses: list[float]) -> None:
        assert self.store.claims.report_progress(claim, {"step": len(losses), "losses": losses})

    def finish(self, claim: Claim) -> None:
        record = claim.record
        assert isinstance(record, EpisodeRecord)
        result = {
            "genotype": GENOTYPE,
            "parameters_kept": 10,
            "parameters_total": 40,
            "support_accuracy": 1.0,
            "leave_one_out_accuracy": 0.75,
            "unlabelled_belonging": 0.25,
            "suspects": [[0, 0, 1, 40.5]],
            "adapt_seconds": 0.5,
            "warnings": ["unlike what the model knows"],
        }
        losses = [0.3, 0.2, 0.1]
        progress = {"step": 3, "losses": losses}
        assert committed(self.store.claims, claim, progress, result, classifier(record.classes))

    def adapt(self, id: str) -> None:
        self.finish(self.claim(id))

    def fail(self, id: str, error: str) -> None:
        assert self.store.claims.fail(self.claim(id), error)
