"""What both meta learners share: a task, the steps taken on it, its query logits, and the meta-gradient."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lamanas_core.adapt.batches import drawn
from lamanas_core.adapt.inner import Order, Step, TaskLearner, steps
from lamanas_core.adapt.parameters import Parameters, Tensors
from lamanas_core.data.episodes import Episode
from lamanas_core.search.normalisation import Batch


@dataclass(frozen=True)
class MetaGradient:
    """Gradients by the names of ``Parameters.named``, and the query loss after the K steps."""

    gradients: Tensors
    loss: float


def query_logits(
    learner: TaskLearner, parameters: Parameters, theta: Tensors, alpha: Tensors, episode: Episode
) -> Tensor:
    """Logits of the queries under θ, α, with moments and head taken from the support set alone."""
    images = torch.cat([episode.support, episode.queries])
    n = len(episode.support)
    features, _ = learner.embed(theta, alpha, images, batch=Batch(support=n))
    head = learner.fitted_head(theta, parameters.log_scale, features[:n], episode.support_labels, episode.ways)
    return head.logits(features[n:])


def meta_gradient(loss: Tensor, live: Parameters, penalty: Tensor | float = 0.0) -> MetaGradient:
    """The gradient of ``loss + penalty`` in everything that is meta-learned."""
    named = live.named()
    gradients = torch.autograd.grad(loss + penalty, list(named.values()), materialize_grads=True)
    return MetaGradient(dict(zip(named, gradients, strict=True)), float(loss.detach()))


def inner_steps(
    learner: TaskLearner,
    parameters: Parameters,
    episode: Episode,
    count: int,
    generator: torch.Generator,
    order: Order,
    *,
    keep_graphs: bool = False,
) -> Iterator[Step]:
    size = learner.config.task_learner.batch
    batches = None
    if size is not None:
        batches = [rows.to(episode.support.device) for rows in drawn(episode.support_labels, count, size, generator)]
    return steps(
        learner,
        parameters,
        episode.support,
        episode.support_labels,
        episode.ways,
        count,
        order=order,
        batches=batches,
        dropping=generator,
        keep_graphs=keep_graphs,
    )
