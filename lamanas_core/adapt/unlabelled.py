"""Images without a label: they move the class means and the covariance of the fitted head.

First it is estimated which of them belong to the classes at all. Novelty was calibrated on as many images of the
classes as of others; if the fraction π of the images belongs to the classes, an image with the novelty v belongs to
them with

    w = π (1 - v) / (π (1 - v) + (1 - π) v)

and π is the mean of w, found by repeating both (expectation maximisation). Then each image is shared among the classes,
w p_c each, by its logits z under the head that was fitted to the labelled images alone:

    p_c ∝ exp(z_c) / √m_c          m_c = 1 + Σ w p_c

where m_c is about the number of images of the class, also found by repetition. Without it, a class whose few images lie
in the middle of the others would get too many; the root leaves room for classes of which there are more. In the end the
head is fitted to the labelled images and these shares. What comes of it is one fixed classifier.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.heads.base import FittedHead, Support, Unlabelled
from lamanas_core.heads.distances import DistanceHead

# If a smaller fraction of the unlabelled images seems to belong to the classes, none is used. Of 100 of Omniglot's
# validation characters that did not, less than a twentieth seemed to in 19 of 20 episodes. Photos of other classes
# often seem to, as with one labelled image a class, few are told from those of the classes (docs/told.md).
FEWEST = 0.2
# More repetitions change π and m_c by less than a hundredth.
REPETITIONS = 50
# Bounds on probabilities of which the logarithm is taken.
SMALLEST = 1e-6


@dataclass(frozen=True)
class Fitted:
    """``head``: fitted to labelled and unlabelled images. ``belonging``: the estimated fraction (0..1) of the
    unlabelled images that belongs to the classes; they were not used if it is below ``FEWEST``. None if the head is not
    fitted to the support set, and so ignores them.
    """

    head: FittedHead
    belonging: float | None


def fit_with(
    learner: TaskLearner, theta: Mapping[str, Tensor], log_scale: Tensor, support: Support, of_unlabelled: Tensor
) -> Fitted:
    """The head fitted to ``support`` and to the features ``of_unlabelled`` (m, d) of images without a label, m > 0.

    Where novelty is not measured, all of these images are taken to belong to the classes.
    """
    head = learner.fitted_head(theta, log_scale, support)
    if not isinstance(head, DistanceHead):
        return Fitted(head, None)
    weights, belonging = _belonging(head, of_unlabelled)
    if belonging < FEWEST:
        return Fitted(head, belonging)
    shares = _shares(head.logits(of_unlabelled), weights)
    together = replace(support, unlabelled=Unlabelled(of_unlabelled, shares))
    return Fitted(learner.fitted_head(theta, log_scale, together), belonging)


def _shares(logits: Tensor, weights: Tensor) -> Tensor:
    """w p_c of each image, (m, ways), from ``logits`` (m, ways) and ``weights`` w, (m,)."""
    shares = weights[:, None] * logits.softmax(1)
    for _ in range(REPETITIONS):
        images = 1 + shares.sum(0)
        shares = weights[:, None] * (logits - images.log() / 2).softmax(1)
    return shares


def _belonging(head: DistanceHead, features: Tensor) -> tuple[Tensor, float]:
    """w of each image, (m,), and π, from features (m, d) under a ``head`` that was fitted to labelled images alone."""
    log_odds = head.log_odds(features)
    if log_odds is None:
        return features.new_ones(len(features)), 1.0
    for_them = -log_odds.double()  # the logarithm of (1 - v) / v
    fraction = torch.tensor(0.5, dtype=torch.float64)
    weights = torch.sigmoid(for_them)
    for _ in range(REPETITIONS):
        fraction = weights.mean().clamp(SMALLEST, 1 - SMALLEST)
        weights = torch.sigmoid(for_them + torch.logit(fraction))
    return weights.to(features), float(fraction)


def warnings_of_unlabelled(belonging: float | None) -> tuple[str, ...]:
    """What a user who sent images without a label should know; ``belonging``: see ``Fitted``."""
    if belonging is None:
        return ("The images without a label were not used: this meta-model cannot learn from them.",)
    if belonging >= FEWEST:
        return ()
    return (
        f"Only about {belonging:.0%} of the images without a label seem to show one of the classes, so none of them "
        "was used.",
    )
