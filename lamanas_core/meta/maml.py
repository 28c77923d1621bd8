"""Algorithm 1 (MAML): the gradient of the query loss through the steps."""

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
    """Algorithm 1: the gradient of the query cross-entropy after ``count`` steps, exact or of first order (``steps``).

    ``generator`` draws batches and dropped paths. Raises ValueError for a task learner by Adam with β₁ = 0: its first
    step is the gradient's sign, through which no meta-gradient flows.
    """
    if learner.config.task_learner.optimizer == "adam":
        raise ValueError("Algorithm 1 needs a task learner by SGD; this one is by Adam")
    live = parameters.map(lambda tensor: tensor.detach().requires_grad_())
    theta, alpha = live.theta, live.alpha
    for step in inner_steps(learner, live, episode, count, generator, order):
        theta, alpha = step.theta, step.alpha
    loss = F.cross_entropy(query_logits(learner, live, theta, alpha, episode), episode.query_labels)
    return meta_gradient(loss, live)
