"""What both meta learners share: a task, the steps taken on it, its query logits, and the meta-gradient."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lamanas_core.adapt.batches import drawn
from lamanas_core.adapt.inner import Learner, Order, Step, steps
from lamanas_core.adapt.parameters import Parameters, Tensors
from lamanas_core.heads import fitted_head
from lamanas_core.search.normalisation import Statistics


@dataclass(frozen=True)
class Task:
    """An episode ready for the network: images float (n, c, h, w), labels int64 (n,)."""

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor
    ways: int


@dataclass(frozen=True)
class MetaGradient:
    """Gradients by the names of ``Parameters.named``, and the query loss after the K steps."""

    gradients: Tensors
    loss: float


def query_logits(learner: Learner, parameters: Parameters, theta: Tensors, alpha: Tensors, task: Task) -> Tensor:
    """Logits of the query images under θ, α, statistics and head taken from the support set."""
    images = torch.cat([task.support, task.query])
    n = len(task.support)
    features = learner.embed(theta, alpha, images, Statistics(n))
    head = fitted_head(learner.config, theta, parameters.log_scale, features[:n], task.support_labels, task.ways)
    return head.logits(features[n:])


def meta_gradient(loss: Tensor, live: Parameters, penalty: Tensor | float = 0.0) -> MetaGradient:
    """The gradient of ``loss + penalty`` in everything that is meta-learned."""
    named = live.named()
    gradients = torch.autograd.grad(loss + penalty, list(named.values()), materialize_grads=True)
    return MetaGradient(dict(zip(named, gradients, strict=True)), float(loss.detach()))


def inner_steps(
    learner: Learner,
    parameters: Parameters,
    task: Task,
    count: int,
    generator: torch.Generator,
    order: Order,
    *,
    keep_graphs: bool = False,
) -> Iterator[Step]:
    size = learner.config.task_learner.batch
    batches = None
    if size is not None:
        batches = [rows.to(task.support.device) for rows in drawn(task.support_labels, count, size, generator)]
    return steps(
        learner,
        parameters,
        task.support,
        task.support_labels,
        task.ways,
        count,
        order=order,
        batches=batches,
        dropping=generator,
        keep_graphs=keep_graphs,
    )
