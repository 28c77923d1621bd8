"""The paper's head: a linear layer for a fixed number of classes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lamanas_core.config import TaskLearnerConfig
from lamanas_core.heads.base import FittedHead, Head, LossNetwork, Support
from lamanas_core.losses.invariant import LearnedLoss
from lamanas_core.losses.paper import PaperLoss

WEIGHT, BIAS = "head.weight", "head.bias"


class LinearHead(Head):
    """The paper's head: a linear layer in θ for a fixed number of classes, ``NetworkConfig.ways``."""

    leaves_one_out = False
    measures_novelty = False

    def layer(self, features: int) -> nn.Module | None:
        return nn.Linear(features, self.network.ways)

    def classes(self) -> int | None:
        return self.network.ways

    def support_logits(self, theta: Mapping[str, Tensor], support: Support, scale: Tensor | float) -> Tensor:
        """Logits (n, ``NetworkConfig.ways``): all of the layer's columns, as the paper's loss networks require."""
        return FittedHead(theta[WEIGHT], theta[BIAS]).logits(support.features)

    def fit(self, theta: Mapping[str, Tensor], support: Support, scale: Tensor) -> FittedHead:
        return FittedHead(theta[WEIGHT][: support.ways], theta[BIAS][: support.ways])

    def loss_network(self, task: TaskLearnerConfig, generator: torch.Generator | None) -> LossNetwork:
        if task.loss == "cross_entropy":
            return LearnedLoss(task.loss, task.residual, task.hidden, generator)
        residual = task.residual_at if task.residual else "none"
        return PaperLoss(task.loss, residual, task.hidden, self.network.ways, generator)
