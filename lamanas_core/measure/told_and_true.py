"""Compares what the service reports about an episode with the truth."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lamanas_core.adapt.adapted import adapt_to
from lamanas_core.artifact import Answers, Classifier
from lamanas_core.data.episodes import out_of_class
from lamanas_core.data.folders import ImageClasses
from lamanas_core.measure.evaluate import EvaluationConfig, sampled
from lamanas_core.measure.kinds import judged
from lamanas_core.measure.metrics import mean_and_interval
from lamanas_core.meta_model import MetaModel

# One support image in this many gets a wrong label, to measure how many of them are found.
IMAGES_PER_WRONG_LABEL = 20


def told_and_true(
    model: MetaModel,
    classes: ImageClasses,
    config: EvaluationConfig,
    on_episode: Callable[[int], None],
    *,
    looked_at: ImageClasses,
) -> dict[str, Any]:
    """What the service reports, and the truth, over ``config.episodes`` episodes. ``on_episode``: see ``evaluate``;
    ``looked_at``: the same classes, loaded as ``image_kinds.JUDGED``.

    ``accuracy`` on new images, its ``estimate`` (``Adapted.leave_one_out_accuracy``) and their ``difference`` by
    episode, each as mean and half-width of the 95 % confidence interval; the last two None without an estimate.
    ``warned``: the fraction of episodes with a warning, among them that of photos for a model for drawings.
    ``called_unknown``: the fractions of new images and of out-of-class images that are called unknown, each None if
    there are none. ``suspects``: where one label in ``IMAGES_PER_WRONG_LABEL`` is wrong, ``recall`` (of the wrong
    labels, the fraction that is found) and ``precision`` (of the labels that are found, the fraction that is wrong),
    None where there are none; ``false_per_image`` where all labels are right.
    """
    pairs, warned, inside, outside = [], [], [], []
    wrong, named, both, false, images = 0, 0, 0, 0, 0
    generator = torch.Generator().manual_seed(config.seed + 1)
    options: dict[str, Any] = {"seed": config.seed, "device": config.device, "judged": True}
    both_ways = zip(sampled(classes, config), sampled(looked_at, config), strict=True)
    for number, (episode, seen) in enumerate(both_ways):
        ways = episode.ways
        adapted = adapt_to(model, episode, steps=config.steps, **options)
        artifact = Classifier.from_bytes(adapted.artifact)
        answers = artifact.answers(episode.queries.numpy())
        right = answers.probabilities.argmax(1) == episode.query_labels.numpy()
        pairs.append((float(right.mean()), adapted.leave_one_out_accuracy))
        foreign = model.config.network.image.drawings and judged(seen).kind == "photos"
        warned.append(foreign or bool(adapted.warnings))
        inside += _unknown(answers)
        if len(classes) > ways:
            others = out_of_class(classes, episode, len(episode.queries), generator)
            outside += _unknown(artifact.answers(others.numpy()))
        false, images = false + len(adapted.suspects), images + len(episode.support)
        labels, changed = with_wrong_labels(episode.support_labels, ways, generator)
        # Suspects are found before the first step.
        found = {
            one.row for one in adapt_to(model, replace(episode, support_labels=labels), steps=0, **options).suspects
        }
        wrong, named, both = wrong + len(changed), named + len(found), both + len(found & changed)
        on_episode(number + 1)
    estimates = [estimate for _, estimate in pairs if estimate is not None]
    return {
        "accuracy": mean_and_interval([accuracy for accuracy, _ in pairs]),
        "estimate": mean_and_interval(estimates) if estimates else None,
        "difference": mean_and_interval([e - a for a, e in pairs if e is not None]) if estimates else None,
        "warned": sum(warned) / len(warned),
        "called_unknown": [float(np.mean(part)) if part else None for part in (inside, outside)],
        "suspects": {
            "recall": both / wrong if wrong else None,
            "precision": both / named if named else None,
            "false_per_image": false / images,
        },
    }


def with_wrong_labels(labels: Tensor, ways: int, generator: torch.Generator) -> tuple[Tensor, set[int]]:
    """A copy of ``labels``, int64 (n,) in 0..``ways``-1, with one in ``IMAGES_PER_WRONG_LABEL`` wrong, and the rows of
    those. No class loses its only image.
    """
    counts = torch.bincount(labels, minlength=ways)
    changed, rows = labels.clone(), set[int]()
    for row in torch.randperm(len(labels), generator=generator).tolist():
        if len(rows) == max(1, len(labels) // IMAGES_PER_WRONG_LABEL):
            break
        if counts[labels[row]] > 1:
            shift = int(torch.randint(1, ways, (), generator=generator))
            changed[row] = (labels[row] + shift) % ways
            counts[labels[row]] -= 1
            rows.add(row)
    return changed, rows


def _unknown(answers: Answers) -> list[float]:
    """The fraction of the images that are called unknown; empty if novelty is not measured."""
    return [] if answers.known is None else [1 - float(answers.known.mean())]
