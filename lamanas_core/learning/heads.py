"""From features to logits: a linear layer, fitted to the support set's prototypes or learned with θ (the paper's)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lamanas_core.learning.config import Config
from lamanas_core.learning.prototypes import leave_one_out_logits, prototypes

WEIGHT, BIAS = "head.weight", "head.bias"


@dataclass(frozen=True)
class Head:
    """``weight`` (ways, d), ``bias`` (ways,)."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, ways)."""
        return torch.nn.functional.linear(features, self.weight, self.bias)


def fitted_head(
    config: Config, theta: Mapping[str, Tensor], log_scale: Tensor, features: Tensor, labels: Tensor, ways: int
) -> Head:
    """The head for ``ways`` classes: θ's own, or -scale * ‖f - c‖² / d up to a term common to all classes.

    ``features`` (n, d) and ``labels`` int64 (n,) of the support set make the prototypes c: w = 2c, b = -‖c‖².
    """
    if config.network.head == "linear":
        return Head(theta[WEIGHT][:ways], theta[BIAS][:ways])
    centres = prototypes(features, labels, ways)
    scale = log_scale.exp() / features.shape[1]
    return Head(2 * scale * centres, -scale * centres.square().sum(1))


def support_logits(
    config: Config, theta: Mapping[str, Tensor], log_scale: Tensor, features: Tensor, labels: Tensor, ways: int
) -> Tensor:
    """The logits (n, ways) that L_φ is taken on while adapting.

    With prototypes, tempered and leaving out: the plain ones are saturated on the images that made the prototypes.
    """
    if config.network.head == "linear":
        return fitted_head(config, theta, log_scale, features, labels, ways).logits(features)
    return leave_one_out_logits(features, labels, ways, log_scale.exp() * config.task_learner.logit_scale)
