"""Ablation of the adaptation: variants of one meta-model on the same episodes, with paired comparisons."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lamanas_core.adapt.adapted import adapt_to
from lamanas_core.data.augment import restyled
from lamanas_core.data.episodes import Episode, to_float
from lamanas_core.data.folders import ImageClasses
from lamanas_core.data.maps import with_inputs
from lamanas_core.genotype import Genotype
from lamanas_core.image_spec import ImageSpec
from lamanas_core.measure.evaluate import EvaluationConfig, measured_on, sampled
from lamanas_core.measure.metrics import rounded_interval
from lamanas_core.meta_model import MetaModel
from lamanas_core.recipe import Styles

# The step sizes were not meta-learned for cross-entropy, so it is tried with multiples of those of L_φ, down to steps
# so small that they hardly differ from no adaptation.
CROSS_ENTROPY_RATES = {
    "cross_entropy_3": 3.0,
    "cross_entropy_1": 1.0,
    "cross_entropy_1/3": 1 / 3,
    "cross_entropy_1/10": 1 / 10,
    "cross_entropy_1/30": 1 / 30,
}


@dataclass(frozen=True)
class Variant:
    """A variant of the adaptation: a meta-model and the number of inner steps (None: its K)."""

    model: MetaModel
    steps: int | None


def variants(model: MetaModel) -> dict[str, Variant]:
    """The variants by name: no steps; K steps of L_φ on θ and α, on θ only and on α only; K steps of cross-entropy
    with each multiple of the step sizes in ``CROSS_ENTROPY_RATES``.
    """
    parameters = model.parameters
    partial = {
        "theta_only": replace(parameters, alpha_log_rates=torch.full_like(parameters.alpha_log_rates, -torch.inf)),
        "alpha_only": replace(parameters, theta_log_rates=torch.full_like(parameters.theta_log_rates, -torch.inf)),
    }
    found = {"none": Variant(model, 0), "learned": Variant(model, None)}
    found |= {name: Variant(MetaModel(part, model.card), None) for name, part in partial.items()}
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
    """Evaluate every variant on the same episodes, each query on its own. ``config.steps`` is ignored.

    ``on_episode`` is called with the number of episodes done. Returns the comparison (see ``compared``) and, for the
    genotypes after K steps of L_φ, ``genotype_moved``, the fraction of episodes whose genotype differs from the
    meta-model's, and ``genotype_pairs_differ`` (see ``pairs_that_differ``).
    """
    by_name, classes = variants(model), with_inputs(classes, model.learner.network, config.fewest)
    accuracies: dict[str, list[float]] = {name: [] for name in by_name}
    entropies: dict[str, list[float]] = {name: [] for name in by_name}
    genotypes: list[Hashable] = []
    for number, episode in enumerate(sampled(classes, config)):
        for name, variant in by_name.items():
            adapted = adapt_to(variant.model, episode, steps=variant.steps, seed=number, device=config.device)
            accuracy, entropy = measured_on(adapted, episode)
            accuracies[name].append(accuracy)
            entropies[name].append(entropy)
            if name == "learned":
                genotypes.append(operations(adapted.genotype))
        on_episode(number + 1)
    before = operations(model.learner.network.genotype(model.parameters.alpha))
    return compared(accuracies, entropies) | {
        "genotype_moved": sum(cells != before for cells in genotypes) / len(genotypes),
        "genotype_pairs_differ": pairs_that_differ(genotypes),
    }


def compare_steps(
    model: MetaModel,
    classes: ImageClasses,
    config: EvaluationConfig,
    on_episode: Callable[[int], None],
    *,
    counts: Sequence[int],
    restyle: bool,
) -> dict[str, Any]:
    """Adapt to each episode in every number of inner steps in ``counts``. ``config.steps`` is ignored.

    ``on_episode``: see ``ablate``. ``restyle``: see ``redrawn``. Returns ``steps_compared``: for each number of steps,
    as a string, its accuracy, its query cross-entropy, and the paired difference of its accuracy from that of the
    first (``over_first``), each as mean and half-width of its 95 % confidence interval.
    """
    accuracies: dict[int, list[float]] = {count: [] for count in counts}
    entropies: dict[int, list[float]] = {count: [] for count in counts}
    if restyle:
        episodes = redrawn(sampled(classes, config), model.config.network.image, config.seed)
    else:
        episodes = sampled(with_inputs(classes, model.learner.network, config.fewest), config)
    for number, episode in enumerate(episodes):
        for count in accuracies:
            adapted = adapt_to(model, episode, steps=count, seed=number, device=config.device)
            accuracy, entropy = measured_on(adapted, episode)
            accuracies[count].append(accuracy)
            entropies[count].append(entropy)
        on_episode(number + 1)
    return {"steps_compared": steps_compared(accuracies, entropies)}


def steps_compared(
    accuracies: Mapping[int, list[float]], entropies: Mapping[int, list[float]]
) -> dict[str, dict[str, list[float]]]:
    """The comparison in ``compare_steps`` from the accuracies (0..1) and query cross-entropies of the episodes."""
    first = next(iter(accuracies.values()))
    return {
        str(count): {
            "accuracy": rounded_interval(values),
            "query_cross_entropy": rounded_interval(entropies[count]),
            "over_first": rounded_interval([a - b for a, b in zip(values, first, strict=True)]),
        }
        for count, values in accuracies.items()
    }


def redrawn(episodes: Iterable[Episode], spec: ImageSpec, seed: int) -> Iterator[Episode]:
    """``episodes`` with uint8 images, each in one random style for its support set and its queries.

    The styles are those of meta-training (``augment.restyled``); they come from ``seed``, and not from the generator of
    the episodes, which are therefore those that are evaluated without styles.
    """
    generator = torch.Generator().manual_seed(seed + 2)
    for episode in episodes:
        images = restyled(to_float(torch.cat([episode.support, episode.queries])), spec, Styles(), generator)
        support, queries = (255 * images).round().to(torch.uint8).tensor_split([len(episode.support)])
        yield replace(episode, support=support, queries=queries)


def compared(accuracies: Mapping[str, list[float]], entropies: Mapping[str, list[float]]) -> dict[str, Any]:
    """Summarise the per-episode accuracies (0..1) and query cross-entropies of the variants.

    ``variants``: for each variant its accuracy, its query cross-entropy, and the paired differences of its accuracy
    from no adaptation (``over_none``) and from the best cross-entropy variant (``over_best_cross_entropy``), each as
    mean and half-width of its 95 % confidence interval. ``best_cross_entropy``: the cross-entropy variant with the
    highest mean accuracy, which is the one compared with, and the one with the lowest query cross-entropy.
    """
    best = max(CROSS_ENTROPY_RATES, key=lambda name: sum(accuracies[name]))
    rows = {}
    for name, values in accuracies.items():
        row = {"accuracy": rounded_interval(values), "query_cross_entropy": rounded_interval(entropies[name])}
        for against, label in (("none", "over_none"), (best, "over_best_cross_entropy")):
            row[label] = rounded_interval([a - b for a, b in zip(values, accuracies[against], strict=True)])
        rows[name] = row
    lowest = min(CROSS_ENTROPY_RATES, key=lambda name: sum(entropies[name]))
    return {"variants": rows, "best_cross_entropy": {"by_accuracy": best, "by_query_cross_entropy": lowest}}


def pairs_that_differ(found: Sequence[Hashable]) -> float | None:
    """The fraction (0..1) of pairs of elements of ``found`` that are unequal; None for fewer than two elements."""
    pairs = len(found) * (len(found) - 1)
    if pairs == 0:
        return None
    return 1 - sum(count * (count - 1) for count in Counter(found).values()) / pairs


def operations(cells: Genotype) -> Hashable:
    """The kept operations of every edge, without their weights."""
    return tuple(
        tuple(tuple((edge.source, tuple(o.name for o in edge.operations)) for edge in node) for node in cell)
        for cell in (cells.normal, cells.reduction)
    )
