"""The warm-up, the first training stage: θ, α and the scale on a prototype loss, without an inner loop."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters
from lamanas_core.data.episodes import Episode
from lamanas_core.heads.base import Support
from lamanas_core.heads.prototypes import PrototypeHead
from lamanas_core.meta.gradient import MetaGradient, meta_gradient
from lamanas_core.recipe import WarmUp
from lamanas_core.search.mixing import CellWeights, Mixing
from lamanas_core.search.supernet import CellNetwork


def temperature(done: float, recipe: WarmUp) -> float:
    """The softmax temperature of α at progress ``done`` (0..1) of the warm-up; it falls geometrically from 1."""
    return float(recipe.end_temperature ** min(1.0, done / recipe.annealed_by))


def warm_up_gradient(
    learner: TaskLearner, parameters: Parameters, episode: Episode, done: float, recipe: WarmUp
) -> MetaGradient:
    """The gradient of a symmetric prototype loss plus a penalty on the network's size above its target.

    The loss is the mean of two cross-entropies: of the queries under the support set's prototypes, and of the support
    set under the queries' prototypes. Both sets share one forward pass and its moments, which is fine here because
    nothing is adapted. ``done``: progress of the warm-up, in 0..1. The images of ``episode`` are float in 0..1.
    """
    live = parameters.map(lambda tensor: tensor.detach().requires_grad_())
    network = learner.network
    assert isinstance(network, CellNetwork)
    weights = network.weights(live.alpha, Mixing(temperature(done, recipe), recipe.threshold))
    n = len(episode.support)
    features, _ = network(live.theta, weights, torch.cat([episode.support, episode.queries]))
    halves = [(features[:n], episode.support_labels), (features[n:], episode.query_labels)]
    head = PrototypeHead(network.config)
    entropies = []
    for (fitted_to, labels), (classified, truth) in (halves, halves[::-1]):
        fitted = head.fit(live.theta, Support(fitted_to, labels, episode.ways), live.log_scale.exp())
        entropies.append(F.cross_entropy(fitted.logits(classified), truth))
    loss = (entropies[0] + entropies[1]) / 2
    excess = F.relu(size(network, weights, recipe) - recipe.target_size)
    return meta_gradient(loss, live, recipe.pressure * min(1.0, done / recipe.annealed_by) * excess)


def size(network: CellNetwork, weights: CellWeights, recipe: WarmUp) -> Tensor:
    """The fraction of the supernet in use, a differentiable scalar in 0..1.

    An operation with the weight w counts log(1 + w / f) / log(1 + 1 / f) of its cost, where f is ``recipe.faint``. This
    is concave: one operation with the weight 1 costs less than two with the weight 1/2, so that the penalty drives α
    towards few operations.
    """
    used, total = [], []
    for kind, parameter_counts in network.operation_costs.items():
        operation_weights = weights.kinds[kind].weights
        costs = (parameter_counts + recipe.pass_cost * network.config.cells.count(kind)).to(operation_weights)
        counted = torch.log1p(operation_weights / recipe.faint) / math.log1p(1 / recipe.faint)
        used.append((counted * costs).sum())
        total.append(costs.sum())
    return (network.fixed_cost + torch.stack(used).sum()) / (network.fixed_cost + torch.stack(total).sum())
