"""Three episodes of synthetic glyphs, and the shipped model's adaptations to them."""

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch

from lamanas_core.adapt.adapted import Adapted, adapt
from lamanas_core.artifact import Classifier
from lamanas_core.meta_model import MetaModel
from tests.learning.helpers import glyph_support

# The number of support images of each class; each class also has one query.
SHOTS = {
    "5-way 1-shot": [1] * 5,
    "20-way 5-shot": [5] * 20,
    "50 classes, 1 to 5 images": [1 + label % 5 for label in range(50)],
}


@dataclass(frozen=True)
class Result:
    """``summary``: what an episode reports about its adaptation. ``logits`` and ``network_logits``: the queries'
    logits, float32 (queries, classes), from the artifact and from the adapted network.
    """

    summary: dict[str, Any]
    logits: np.ndarray
    network_logits: np.ndarray


def result(model: MetaModel, name: str) -> Result:
    """The adaptation to the episode ``name`` of ``SHOTS`` with the default K."""
    shots = SHOTS[name]
    images, labels = glyph_support(len(shots), [count + 1 for count in shots], seed=len(shots))
    last_of_class = np.cumsum([count + 1 for count in shots]) - 1
    is_query = np.isin(np.arange(len(images)), last_of_class)
    classes = [f"class {label}" for label in range(len(shots))]
    adapted: Adapted = adapt(
        model,
        images[~is_query],
        labels[~is_query],
        classes,
        steps=None,
        seed=0,
        device="cpu",
        on_step=lambda step, steps, loss: None,
    )
    summary = {
        "losses": list(adapted.losses),
        "genotype": adapted.genotype.to_json(),
        "parameters_kept": adapted.parameters_kept,
        "support_accuracy": adapted.support_accuracy,
        "leave_one_out_accuracy": adapted.leave_one_out_accuracy,
        "suspects": [astuple(suspect) for suspect in adapted.suspects],
        "warnings": list(adapted.warnings),
    }
    logits = Classifier.from_bytes(adapted.artifact).logits(images[is_query])
    with torch.no_grad():
        network = adapted.network.logits(torch.from_numpy(images[is_query])).numpy()
    return Result(summary, logits, network)
