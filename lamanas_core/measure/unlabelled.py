"""What images without a label add, in pairs over the same episodes without them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lamanas_core.adapt.adapted import adapt_to
from lamanas_core.data.episodes import Episode, out_of_class
from lamanas_core.data.folders import ImageClasses
from lamanas_core.data.maps import with_inputs
from lamanas_core.image_spec import UNLABELLED
from lamanas_core.measure.evaluate import EvaluationConfig, measured_on, sampled
from lamanas_core.measure.metrics import rounded_interval
from lamanas_core.meta_model import MetaModel


def compare_unlabelled(
    model: MetaModel,
    classes: ImageClasses,
    config: EvaluationConfig,
    on_episode: Callable[[int], None],
    *,
    per_class: int,
    others: int,
) -> dict[str, Any]:
    """Adapt to each episode without unlabelled images and with them: with ``per_class`` of each of its classes
    ("own"), with ``others`` images of other classes besides ("mixed"), and with these alone ("others"). The latter two
    are left out if ``others`` is 0 or there are no other classes. ``on_episode``: see ``evaluate``. Raises ValueError
    if a class has too few images.

    For each of these, and "none", the accuracy, the query cross-entropy, and the paired difference of the accuracy from
    "none" (``over_none``), each as mean and half-width of the 95 % confidence interval; and ``belonging``, the mean of
    ``Adapted.unlabelled_belonging``, None for "none".
    """
    needed = config.shots + config.queries + per_class
    few = [name for name, members in zip(classes.names, classes.members, strict=True) if len(members) < needed]
    if few:
        raise ValueError(
            f"{few[0]} has fewer than {needed} images: {len(few)} classes are too small for this comparison"
        )
    classes = with_inputs(classes, model.learner.network, config.fewest)
    found: dict[str, list[tuple[float, float, float | None]]] = {}
    for number, (episode, own, foreign) in enumerate(_episodes(classes, config, per_class, others)):
        added = {"none": own[:0], "own": own}
        if len(foreign):
            added |= {"mixed": torch.cat([own, foreign]), "others": foreign}
        for name, images in added.items():
            given = _with(episode, images)
            adapted = adapt_to(model, given, steps=config.steps, seed=number, device=config.device)
            found.setdefault(name, []).append((*measured_on(adapted, episode), adapted.unlabelled_belonging))
        on_episode(number + 1)
    none = [accuracy for accuracy, _, _ in found["none"]]
    return {"unlabelled": {name: _summary(results, none) for name, results in found.items()}}


def _episodes(
    classes: ImageClasses, config: EvaluationConfig, per_class: int, others: int
) -> Iterator[tuple[Episode, Tensor, Tensor]]:
    """The episodes of ``config``, and of each ``per_class`` further images of each class and ``others`` of others."""
    generator = torch.Generator().manual_seed(config.seed + 1)
    for episode in sampled(classes, replace(config, queries=config.queries + per_class)):
        labels = episode.query_labels
        place = torch.cat([torch.arange(count) for count in torch.bincount(labels).tolist()])
        asked = place < config.queries
        count = others if len(classes) > episode.ways else 0
        foreign = out_of_class(classes, episode, count, generator) if count else episode.queries[:0]
        own = episode.queries[~asked]
        yield replace(episode, queries=episode.queries[asked], query_labels=labels[asked]), own, foreign


def _with(episode: Episode, images: Tensor) -> Episode:
    labels = torch.full((len(images),), UNLABELLED)
    return replace(
        episode,
        support=torch.cat([episode.support, images]),
        support_labels=torch.cat([episode.support_labels, labels]),
    )


def _summary(results: list[tuple[float, float, float | None]], none: list[float]) -> dict[str, Any]:
    accuracies = [accuracy for accuracy, _, _ in results]
    belonging = [share for _, _, share in results if share is not None]
    return {
        "accuracy": rounded_interval(accuracies),
        "query_cross_entropy": rounded_interval([entropy for _, entropy, _ in results]),
        "over_none": rounded_interval([a - b for a, b in zip(accuracies, none, strict=True)]),
        "belonging": round(sum(belonging) / len(belonging), 4) if belonging else None,
    }
