"""Three episodes of made-up characters, and what the shipped model makes of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lamanas_core.adapt.adapted import Adapted, adapt
from lamanas_core.artifact import Classifier
from lamanas_core.data.episodes import to_float
from lamanas_core.meta_model import MetaModel
from tests.learning.helpers import glyph_support

# Images of each class to learn from; one more of each is asked about.
SHOTS = {
    "5-way 1-shot": [1] * 5,
    "20-way 5-shot": [5] * 20,
    "50 classes, 1 to 5 images": [1 + label % 5 for label in range(50)],
}


@dataclass(frozen=True)
class Result:
    """``told``: what an episode states about its adaptation; logits of the queries by artifact and by network."""

    told: dict[str, Any]
    logits: np.ndarray
    network_logits: np.ndarray


def result(model: MetaModel, name: str) -> Result:
    """The adaptation to an episode of ``SHOTS``, default K."""
    shots = SHOTS[name]
    images, labels = glyph_support(len(shots), [count + 1 for count in shots], seed=len(shots))
    last = np.cumsum([count + 1 for count in shots]) - 1
    asked = np.isin(np.arange(len(images)), last)
    classes = [f"class {label}" for label in range(len(shots))]
    adapted: Adapted = adapt(
        model,
        images[~asked],
        labels[~asked],
        classes,
        steps=None,
        seed=0,
        device="cpu",
        on_step=lambda step, steps, loss: None,
    )
    told = {
        "losses": list(adapted.losses),
        "genotype": adapted.genotype.to_json(),
        "parameters_kept": adapted.parameters_kept,
        "support_accuracy": adapted.support_accuracy,
        "leave_one_out_accuracy": adapted.leave_one_out_accuracy,
        "warnings": list(adapted.warnings),
    }
    logits = Classifier.from_bytes(adapted.artifact).logits(images[asked])
    with torch.no_grad():
        network = adapted.network.logits(to_float(torch.from_numpy(images[asked]))).numpy()
    return Result(told, logits, network)
