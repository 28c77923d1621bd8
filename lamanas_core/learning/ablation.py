"""What each part of the adaptation is worth: variants of one meta-model on the same episodes, compared in pairs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from lamanas_core.genotype import Genotype
from lamanas_core.learning.adaptation import adapt_to
from lamanas_core.learning.architecture import genotype
from lamanas_core.learning.datasets import ImageClasses
from lamanas_core.learning.evaluation import EvaluationConfig, mean_and_interval, measured_on, sampled
from lamanas_core.learning.meta_model import MetaModel

# Cross-entropy never had its step sizes learned for it: it is tried at L_φ's, at a third and at three times those.
CROSS_ENTROPY_RATES = {"cross_entropy": 1.0, "cross_entropy_slower": 1 / 3, "cross_entropy_faster": 3.0}


@dataclass(frozen=True)
class Variant:
    """A way to adapt: a meta-model and how many steps (None: its own K)."""

    model: MetaModel
    steps: int | None


def variants(model: MetaModel) -> dict[str, Variant]:
    """No steps; K steps of L_φ on θ and α, θ alone, α alone; K steps of cross-entropy at three rates."""
    parameters = model.parameters
    still = {
        "theta_only": replace(parameters, alpha_rates=torch.full_like(parameters.alpha_rates, -torch.inf)),
        "alpha_only": replace(parameters, theta_rates=torch.full_like(parameters.theta_rates, -torch.inf)),
    }
    found = {"none": Variant(model, 0), "learned": Variant(model, None)}
    found |= {name: Variant(MetaModel(part, model.card), None) for name, part in still.items()}
    task = replace(model.config.task_learner, loss="cross_entropy")
    card = model.card | {"config": replace(model.config, task_learner=task).to_json()}
    for name, factor in CROSS_ENTROPY_RATES.items():
        shift = torch.tensor(factor).log()
        at_rate = replace(
            parameters,
            phi={},
            theta_rates=parameters.theta_rates + shift,
            alpha_rates=parameters.alpha_rates + shift,
        )
        found[name] = Variant(MetaModel(at_rate, card), None)
    return found


def ablate(
    model: MetaModel, classes: ImageClasses, config: EvaluationConfig, on_episode: Callable[[int], None]
) -> dict[str, Any]:
    """Accuracy and cross-entropy (on the queries) of every variant, the paired differences of its accuracy to no
    adaptation and to the best cross-entropy loss, each with the half-width of its 95 % interval; and in how many of the
    episodes the genotype is not the meta-model's.
    """
    tried = variants(model)
    accuracies: dict[str, list[float]] = {name: [] for name in tried}
    entropies: dict[str, list[float]] = {name: [] for name in tried}
    before, moved = operations(genotype(model.parameters.alpha, model.config.network)), 0
    for number, episode in enumerate(sampled(classes, config)):
        for name, variant in tried.items():
            adapted = adapt_to(variant.model, episode, steps=variant.steps, seed=number, device=config.device)
            accuracy, entropy = measured_on(adapted, episode)
            accuracies[name].append(accuracy)
            entropies[name].append(entropy)
            moved += name == "learned" and operations(adapted.genotype) != before
        on_episode(number + 1)
    best = max(CROSS_ENTROPY_RATES, key=lambda name: sum(accuracies[name]))
    rows = {}
    for name, values in accuracies.items():
        row = {"accuracy": _stated(values), "query_cross_entropy": _stated(entropies[name])}
        for against, label in (("none", "over_none"), (best, "over_cross_entropy")):
            row[label] = _stated([a - b for a, b in zip(values, accuracies[against], strict=True)])
        rows[name] = row
    return {"variants": rows, "best_cross_entropy": best, "genotype_moved": moved / config.episodes}


def operations(cells: Genotype) -> Any:
    """Which operations stand on which edges, without their weights."""
    return [
        [[(edge.source, [operation.name for operation in edge.operations]) for edge in node] for node in cell]
        for cell in (cells.normal, cells.reduction)
    ]


def _stated(values: list[float]) -> list[float]:
    return [round(number, 5) for number in mean_and_interval(values)]
