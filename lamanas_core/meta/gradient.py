"""Common to both meta-learners: the inner loop in meta-training, query logits and the meta-gradient."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lamanas_core.adapt.batches import drawn
from lamanas_core.adapt.inner import Order, Step, TaskLearner, steps
from lamanas_core.adapt.parameters import Parameters, Tensors
from lamanas_core.data.episodes import Episode
from lamanas_core.heads.base import Support
from lamanas_core.search.normalisation import Batch


@dataclass(frozen=True)
class MetaGradient:
    """The meta-gradient of one task, and its outer loss.

    ``gradients``: by the names of ``Parameters.named``. ``loss``: in meta-training the cross-entropy of the queries
    after the K inner steps, in the warm-up that of ``warm_up_gradient`` without its penalty.
    """

    gradients: Tensors
    loss: float

    def finite(self) -> bool:
        """Whether the loss and every entry of the gradients are finite: a step on others would destroy all weights."""
        checked = [value.isfinite().all() for value in self.gradients.values()]
        return math.isfinite(self.loss) and bool(torch.stack(checked).all())


def query_logits(
    learner: TaskLearner, parameters: Parameters, theta: Tensors, alpha: Tensors, episode: Episode
) -> Tensor:
    """The queries' logits, (queries, ways), under θ and α.

    Moments and head are computed from the support set only. The images of ``episode`` are float in 0..1.
    """
    images = torch.cat([episode.support, episode.queries])
    n = len(episode.support)
    features, _ = learner.embed(theta, alpha, images, batch=Batch(support=n))
    support = Support(features[:n], episode.support_labels, episode.ways)
    head = learner.fitted_head(theta, parameters.log_scale, support)
    return head.logits(features[n:])


def meta_gradient(loss: Tensor, live: Parameters, penalty: Tensor | float = 0.0) -> MetaGradient:
    """The gradient of ``loss + penalty`` (scalars) with respect to every tensor of ``live``.

    ``live``: the leaf tensors that both were computed from.
    """
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
    """``count`` inner steps on ``episode`` in meta-training; see ``steps``.

    ``generator`` draws minibatches, if the config has them, and drop-path.
    """
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
