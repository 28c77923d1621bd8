"""``lamanas bench predict``: compares the artifact with the same adapted network in PyTorch."""

from typing import Any

import torch

from benchmarks.adapt import decoded_images, stacked
from benchmarks.measuring import gemm_gflops, in_turns, machine
from lamanas_core.adapt.adapted import adapt
from lamanas_core.artifact import Classifier
from lamanas_core.meta_model import MetaModel, shipped

SIZES = (1, 20, 100)
MIN_IMAGES = 200  # per timed run: one image alone is too fast to time


def measure(runs: int, model: MetaModel | None = None) -> dict[str, Any]:
    """For each number of images: median seconds and cost of one call of each, and the speed-up of the artifact."""
    model = MetaModel.from_bytes(*shipped()) if model is None else model
    images, labels = decoded_images()
    support = stacked(images, model.config.network.image)
    classes = [f"class {label}" for label in range(int(labels.max()) + 1)]
    nothing = lambda step, count, loss: None  # noqa: E731
    adapted = adapt(model, support, labels, classes, steps=None, seed=0, device="cpu", on_step=nothing)
    classifier = Classifier.from_bytes(adapted.artifact, threads=torch.get_num_threads())
    found: dict[str, Any] = {"gemm_gflops": gemm_gflops(), **machine(), "artifact_bytes": len(adapted.artifact)}
    for size in SIZES:
        batch = support[:size]
        calls = max(1, MIN_IMAGES // size)

        def artifact(batch: Any = batch, calls: int = calls) -> None:
            for _ in range(calls):
                classifier.probabilities(batch)

        @torch.inference_mode()
        def in_pytorch(batch: Any = batch, calls: int = calls) -> None:
            for _ in range(calls):
                adapted.network.logits(torch.from_numpy(batch))

        artifact()
        in_pytorch()
        timed = in_turns({"artifact": artifact, "pytorch": in_pytorch}, runs)
        found[f"images_{size}"] = {
            name: {field: value if field == "gemm_gflops" else value / calls for field, value in fields.items()}
            for name, fields in timed.items()
        } | {"ratio": timed["pytorch"]["seconds"] / timed["artifact"]["seconds"]}
    return found
