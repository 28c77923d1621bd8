"""Algorithm 1 (MAML): the gradient of the outer loss through the inner steps."""

from typing import Literal

import torch
import torch.nn.functional as F

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters
from lamanas_core.data.episodes import Episode
from lamanas_core.meta.gradient import MetaGradient, inner_steps, meta_gradient, query_logits


def maml(
    learner: TaskLearner,
    parameters: Parameters,
    episode: Episode,
    count: int,
    generator: torch.Generator,
    order: Literal["first", "second"] = "second",
) -> MetaGradient:
    """The meta-gradient of Algorithm 1 for one task: that of Eq. 4 for θ and α, and likewise for all other parameters.

    The outer loss L_val is the cross-entropy of the queries after ``count`` inner steps. ``order``: the exact gradient
    ("second") or first-order MAML ("first"); see ``steps``. ``generator`` draws minibatches and drop-path. The images
    of ``episode`` are float in 0..1. Raises ValueError if the inner optimiser is Adam with β₁ = 0: its first step is
    the sign of the gradient, through which no meta-gradient flows.
    """
    if learner.config.task_learner.optimizer == "adam":
        raise ValueError("Algorithm 1 needs SGD as the inner optimiser; this task learner uses Adam")
    live = parameters.map(lambda tensor: tensor.detach().requires_grad_())
    theta, alpha = live.theta, live.alpha
    for step in inner_steps(learner, live, episode, count, generator, order):
        theta, alpha = step.theta, step.alpha
    loss = F.cross_entropy(query_logits(learner, live, theta, alpha, episode), episode.query_labels)
    return meta_gradient(loss, live)
