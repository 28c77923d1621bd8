"""What each part of the adaptation is worth: variants of one meta-model on the same episodes, compared in pairs."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lamanas_core.adapt.adapted import adapt_to
from lamanas_core.data.folders import ImageClasses
from lamanas_core.genotype import Genotype
from lamanas_core.measure.evaluate import EvaluationConfig, measured_on, sampled
from lamanas_core.measure.metrics import mean_and_interval
from lamanas_core.meta_model import MetaModel
from lamanas_core.search.alpha import genotype

# Cross-entropy never had its step sizes learned for it: it is tried at L_φ's and at multiples of them, down to where
# its steps are so short that it is as good as no adaptation.
CROSS_ENTROPY_RATES = {
    "cross_entropy_3": 3.0,
    "cross_entropy_1": 1.0,
    "cross_entropy_1/3": 1 / 3,
    "cross_entropy_1/10": 1 / 10,
    "cross_entropy_1/30": 1 / 30,
}


@dataclass(frozen=True)
class Variant:
    """A way to adapt: a meta-model and how many steps (None: its own K)."""

    model: MetaModel
    steps: int | None


def variants(model: MetaModel) -> dict[str, Variant]:
    """No steps; K steps of L_φ on θ and α, θ alone, α alone; K steps of cross-entropy at each rate."""
    parameters = model.parameters
    still = {
        "theta_only": replace(parameters, alpha_log_rates=torch.full_like(parameters.alpha_log_rates, -torch.inf)),
        "alpha_only": replace(parameters, theta_log_rates=torch.full_like(parameters.theta_log_rates, -torch.inf)),
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
            theta_log_rates=parameters.theta_log_rates + shift,
            alpha_log_rates=parameters.alpha_log_rates + shift,
        )
        found[name] = Variant(MetaModel(at_rate, card), None)
    return found


def ablate(
    model: MetaModel, classes: ImageClasses, config: EvaluationConfig, on_episode: Callable[[int], None]
) -> dict[str, Any]:
    """Every variant on the same episodes, each query alone: ``compared``; and of the genotypes after K steps of L_φ
    ``genotype_moved``, the share of episodes in which it is not the meta-model's, and ``genotype_pairs_differ``.
    """
    tried = variants(model)
    accuracies: dict[str, list[float]] = {name: [] for name in tried}
    entropies: dict[str, list[float]] = {name: [] for name in tried}
    genotypes: list[Hashable] = []
    for number, episode in enumerate(sampled(classes, config)):
        for name, variant in tried.items():
            adapted = adapt_to(variant.model, episode, steps=variant.steps, seed=number, device=config.device)
            accuracy, entropy = measured_on(adapted, episode)
            accuracies[name].append(accuracy)
            entropies[name].append(entropy)
            if name == "learned":
                genotypes.append(operations(adapted.genotype))
        on_episode(number + 1)
    before = operations(genotype(model.parameters.alpha, model.config.network))
    return compared(accuracies, entropies) | {
        "genotype_moved": sum(cells != before for cells in genotypes) / len(genotypes),
        "genotype_pairs_differ": pairs_that_differ(genotypes),
    }


def compared(accuracies: Mapping[str, list[float]], entropies: Mapping[str, list[float]]) -> dict[str, Any]:
    """``variants``: of each its accuracy and its own queries' cross-entropy, and the differences of its accuracy to no
    adaptation and to the best cross-entropy loss, in pairs, each as mean and half-width of its 95 % interval.

    ``best_cross_entropy``: the rate of the highest mean accuracy, which is the one compared with, and the rate of the
    lowest cross-entropy on the queries, which may be another.
    """
    best = max(CROSS_ENTROPY_RATES, key=lambda name: sum(accuracies[name]))
    rows = {}
    for name, values in accuracies.items():
        row = {"accuracy": _stated(values), "query_cross_entropy": _stated(entropies[name])}
        for against, label in (("none", "over_none"), (best, "over_best_cross_entropy")):
            row[label] = _stated([a - b for a, b in zip(values, accuracies[against], strict=True)])
        rows[name] = row
    surest = min(CROSS_ENTROPY_RATES, key=lambda name: sum(entropies[name]))
    return {"variants": rows, "best_cross_entropy": {"by_accuracy": best, "by_query_cross_entropy": surest}}


def pairs_that_differ(found: Sequence[Hashable]) -> float | None:
    """The share of pairs of two different places in ``found`` that hold unequal things; None where there is no pair."""
    pairs = len(found) * (len(found) - 1)
    if pairs == 0:
        return None
    return 1 - sum(count * (count - 1) for count in Counter(found).values()) / pairs


def operations(cells: Genotype) -> Hashable:
    """Which operations stand on which edges, without their weights."""
    return tuple(
        tuple(tuple((edge.source, tuple(o.name for o in edge.operations)) for edge in node) for node in cell)
        for cell in (cells.normal, cells.reduction)
    )


def _stated(values: list[float]) -> list[float]:
    return [round(number, 5) for number in mean_and_interval(values)]
