"""From features to logits: a linear layer, fitted to the support set's prototypes or learned with θ (the paper's)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lamanas_core.config import Config

WEIGHT, BIAS = "head.weight", "head.bias"
NEAREST = 1e-9  # the least distance: its logarithm is taken


@dataclass(frozen=True)
class Head:
    """``weight`` (ways, d), ``bias`` (ways,). Of prototypes also ``scale``, what a squared distance / d counts in
    logits.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor | None = None

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, ways)."""
        return torch.nn.functional.linear(features, self.weight, self.bias)

    def spread(self) -> Tensor:
        """A scalar: the mean squared distance / d of a prototype from the nearest other. Raises ValueError for a head
        without prototypes.
        """
        d = self.weight.shape[1]
        centres = self.weight * (d / 2 / self._scale())
        itself = torch.diag(torch.full((len(centres),), torch.inf)).to(centres)
        apart = (centres[:, None] - centres).square().mean(2) + itself
        return apart.amin(1).mean().clamp(min=NEAREST)

    def log_distance_ratio(self, features: Tensor) -> Tensor:
        """(n, d) -> (n,): log of the squared distance / d to the nearest prototype over ``spread``. Raises ValueError
        for a head without prototypes.
        """
        nearest = features.square().mean(1) - self.logits(features).amax(1) / self._scale()
        return (nearest.clamp(min=NEAREST) / self.spread()).log()

    def _scale(self) -> Tensor:
        if self.scale is None:
            raise ValueError("a linear head has no prototypes to be far from")
        return self.scale


def fitted_head(
    config: Config, theta: Mapping[str, Tensor], log_scale: Tensor, features: Tensor, labels: Tensor, ways: int
) -> Head:
    """The head for ``ways`` classes: θ's own, or made of the prototypes of the support set, at the calibrated scale."""
    if config.network.head == "linear":
        return Head(theta[WEIGHT][:ways], theta[BIAS][:ways])
    return prototype_head(features, labels, ways, log_scale.exp() / config.calibration.temperature)


def prototype_head(features: Tensor, labels: Tensor, ways: int, scale: Tensor) -> Head:
    """-scale * ‖f - c‖² / d up to a term common to all classes: w = 2c, b = -‖c‖², times scale / d.

    ``features`` (n, d) and ``labels`` int64 (n,) make the prototypes c.
    """
    centres = prototypes(features, labels, ways)
    per_feature = scale / features.shape[1]
    return Head(2 * per_feature * centres, -per_feature * centres.square().sum(1), scale)


def support_logits(
    config: Config, theta: Mapping[str, Tensor], log_scale: Tensor, features: Tensor, labels: Tensor, ways: int
) -> Tensor:
    """The logits that L_φ is taken on while adapting, (n, ways), or (n, all) of a linear layer: the paper's losses take
    as many as it has, and no image is of a class that the task does not have.

    With prototypes, tempered and leaving out: the plain ones are saturated on the images that made the prototypes.
    """
    if config.network.head == "linear":
        return Head(theta[WEIGHT], theta[BIAS]).logits(features)
    return leave_one_out_logits(features, labels, ways, log_scale.exp() * config.task_learner.logit_scale)


def prototypes(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Mean feature of each class: features (n, d), labels int64 (n,) -> (ways, d)."""
    counts = torch.bincount(labels, minlength=ways).to(features)
    sums = features.new_zeros(ways, features.shape[1]).index_add(0, labels, features)
    return sums / counts[:, None]


def leave_one_out_logits(features: Tensor, labels: Tensor, ways: int, scale: Tensor | float) -> Tensor:
    """Each support image against prototypes made without it, (n, ways).

    A class with one image keeps its plain prototype: without that image it would have none.
    """
    d = features.shape[1]
    centres = prototypes(features, labels, ways)
    plain = -(features.square().sum(1)[:, None] - 2 * features @ centres.T + centres.square().sum(1)) * (scale / d)
    counts = torch.bincount(labels, minlength=ways).to(features)[labels]
    # Without the image itself its own prototype lies count / (count - 1) times as far away.
    stretch = torch.where(counts > 1, counts / (counts - 1).clamp(min=1), torch.ones_like(counts)).square()
    own = torch.nn.functional.one_hot(labels, ways).bool()
    return torch.where(own, plain * stretch[:, None], plain)
