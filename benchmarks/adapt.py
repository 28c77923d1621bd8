"""``lamanas bench adapt``: K steps of preset ``paper`` and of the plain reference; a whole adaptation as served."""

import time
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.measuring import counted_gflop, gemm_gflops, in_turns, machine, peak_memory_mb, where_time_goes
from benchmarks.plain_reference import PlainLearner
from lamanas_core.adapt.adapted import Adapted, adapt
from lamanas_core.adapt.batches import drawn
from lamanas_core.adapt.inner import TaskLearner, steps
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.config import PAPER, Config
from lamanas_core.data.episodes import to_float
from lamanas_core.data.sources.glyphs import draw, glyph_class
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import preprocess
from lamanas_core.meta_model import MetaModel, shipped

WAYS, SHOTS = 20, 5
RESEARCH_CODE = {"paper": 1320, "serving": 6100}  # GFLOP-equivalents that the public research code needs for each


def decoded_images(ways: int = WAYS, shots: int = SHOTS, seed: int = 0) -> tuple[list[Image.Image], np.ndarray]:
    """Generated characters, 105 x 105 RGB, sorted by class, and their labels int64 (n,)."""
    rng = np.random.default_rng(seed)
    drawings = [draw(strokes, rng) for strokes in (glyph_class(rng) for _ in range(ways)) for _ in range(shots)]
    return drawings, np.repeat(np.arange(ways), shots)


def stacked(images: list[Image.Image], spec: ImageSpec) -> np.ndarray:
    """The preprocessed images, uint8 (n, c, h, w)."""
    return np.stack([preprocess(image, spec) for image in images])


def measure(runs: int) -> dict[str, Any]:
    """Both measurements, with torch's current number of threads. docs/performance.md explains the fields."""
    rate = gemm_gflops()
    # The one with less memory first: the process's peak memory never decreases.
    served = serving(runs)
    return {"gemm_gflops": rate, **machine(), "paper": paper(runs), "serving": served}


def paper(runs: int, config: Config = PAPER) -> dict[str, Any]:
    """K steps of our implementation and of the plain reference, alternately, on the same images and batches."""
    learner, parameters = TaskLearner.build(config), initial_parameters(config, 0)
    ways = config.network.ways
    images, labels = decoded_images(ways)
    support, targets = to_float(torch.from_numpy(stacked(images, config.network.image))), torch.from_numpy(labels)
    count, size = config.task_learner.steps, config.task_learner.batch or len(targets)
    batches = drawn(targets, count, size, torch.Generator().manual_seed(0))

    def ours() -> None:
        list(steps(learner, parameters, support, targets, ways, count, batches=batches))

    def reference() -> None:
        PlainLearner(config, parameters).adapt(support, targets, batches)

    # Counting comes first, so that it also serves as the warm-up.
    counted = {}
    for name, work in {"ours": ours, "reference": reference}.items():
        counted[name] = {"gflop": counted_gflop(work), "peak_memory_mb": peak_memory_mb()}
    timed = in_turns({"ours": ours, "reference": reference}, runs)
    return {
        **_account(timed["ours"], counted["ours"]),
        "ratio": timed["reference"]["seconds"] / timed["ours"]["seconds"],
        "cpu_ratio": timed["reference"]["cpu_seconds"] / timed["ours"]["cpu_seconds"],
        "research_code_cost": RESEARCH_CODE["paper"],
        "where": where_time_goes(ours),
        "reference": _account(timed["reference"], counted["reference"]),
    }


def serving(runs: int, model: MetaModel | None = None) -> dict[str, Any]:
    """A whole adaptation with the default K, from decoded images to the finished artifact."""
    model = MetaModel.from_bytes(*shipped()) if model is None else model
    images, labels = decoded_images()
    phases: dict[str, list[float]] = {"preprocessing": [], "steps": [], "finishing": []}

    def ours() -> Adapted:
        return _whole_adaptation(model, images, labels, phases)

    counted = {"gflop": counted_gflop(ours), "peak_memory_mb": peak_memory_mb()}
    account = _account(in_turns({"ours": ours}, runs)["ours"], counted)
    spent = {name: float(np.median(seconds[-runs:])) for name, seconds in phases.items()}
    whole = sum(spent.values())
    return account | {
        "ratio": RESEARCH_CODE["serving"] / account["cost"],
        "research_code_cost": RESEARCH_CODE["serving"],
        "model_version": model.version,
        "steps": model.config.task_learner.steps,
        "phases": {name: round(seconds / whole, 3) for name, seconds in spent.items()},
        "where": where_time_goes(ours),
    }


def _whole_adaptation(
    model: MetaModel, images: list[Image.Image], labels: np.ndarray, phases: dict[str, list[float]]
) -> Adapted:
    """Appends to ``phases`` the seconds of preprocessing, of the K steps, and of statistics, head and artifact."""
    marks = [time.perf_counter()]
    support = stacked(images, model.config.network.image)
    marks.append(time.perf_counter())
    last = marks[1]

    def mark(step: int, count: int, loss: float) -> None:
        nonlocal last
        last = time.perf_counter()

    classes = [f"class {label}" for label in range(int(labels.max()) + 1)]
    adapted = adapt(model, support, labels, classes, steps=None, seed=0, device="cpu", on_step=mark)
    marks += [last, time.perf_counter()]
    for name, start, end in zip(phases, marks, marks[1:], strict=False):
        phases[name].append(end - start)
    return adapted


def _account(timed: dict[str, float], counted: dict[str, float]) -> dict[str, Any]:
    """The timings and counts, and their ratio as a share of the matrix-product rate."""
    return {**timed, **counted, "share_of_rate": counted["gflop"] / timed["cost"]}
