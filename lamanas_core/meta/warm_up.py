"""Step 1 of the training schedule: θ and α by a plain prototype loss, no adaptation inside."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters
from lamanas_core.data.episodes import Episode
from lamanas_core.heads import PrototypeHead
from lamanas_core.meta.gradient import MetaGradient, meta_gradient
from lamanas_core.recipe import WarmUp
from lamanas_core.search.alpha import CellWeights, cell_weights
from lamanas_core.search.network import Network


def temperature(done: float, recipe: WarmUp) -> float:
    """Softmax temperature of α after the share ``done`` (0 to 1) of the warm-up: from 1.0 down, geometrically."""
    return float(recipe.end_temperature ** min(1.0, done / recipe.annealed_by))


def warm_up_gradient(
    learner: TaskLearner, parameters: Parameters, episode: Episode, done: float, recipe: WarmUp
) -> MetaGradient:
    """Gradient of a prototype loss taken both ways, and of the network's excess over its target size.

    Every image serves twice: the queries are classified by the support set's prototypes and the other way round.
    One pass for both, normalised by the moments of both: at this stage that is only a larger sample of the task.
    ``done``: share of the warm-up that lies behind, 0 to 1.
    """
    live = parameters.map(lambda tensor: tensor.detach().requires_grad_())
    network = learner.config.network
    heat = temperature(done, recipe)
    weights = cell_weights(live.alpha, network, temperature=heat, threshold=network.train_threshold)
    n = len(episode.support)
    features, _ = learner.network(live.theta, weights, torch.cat([episode.support, episode.queries]))
    sides = [(features[:n], episode.support_labels), (features[n:], episode.query_labels)]
    head = PrototypeHead(network)
    entropies = []
    for (made_of, labels), (asked, truth) in (sides, sides[::-1]):
        fitted = head.fit(live.theta, made_of, labels, episode.ways, live.log_scale.exp())
        entropies.append(F.cross_entropy(fitted.logits(asked), truth))
    loss = (entropies[0] + entropies[1]) / 2
    excess = F.relu(size(learner.network, weights, recipe) - recipe.target_size)
    return meta_gradient(loss, live, recipe.pressure * min(1.0, done / recipe.annealed_by) * excess)


def size(network: Network, weights: CellWeights, recipe: WarmUp) -> Tensor:
    """A scalar 0..1: the share of the supernet in use, an operation of weight w counting log(1 + 20 w) / log(21).

    Concave, so that one whole operation weighs less than two halves: pressing on it drives α apart.
    """
    used, every = [], []
    for kind, numbers in network.operation_costs.items():
        given = weights.kinds[kind].weights
        costs = (numbers + recipe.pass_cost * network.config.cells.count(kind)).to(given)
        counted = torch.log1p(given / recipe.faint) / math.log1p(1 / recipe.faint)
        used.append((counted * costs).sum())
        every.append(costs.sum())
    return (network.fixed_cost + torch.stack(used).sum()) / (network.fixed_cost + torch.stack(every).sum())
