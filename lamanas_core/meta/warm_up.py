"""Step 1 of the training schedule: θ and α by a plain prototype loss, no adaptation inside."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.adapt.inner import Learner
from lamanas_core.adapt.parameters import Parameters
from lamanas_core.config import NetworkConfig
from lamanas_core.heads import prototype_head
from lamanas_core.meta.gradient import MetaGradient, Task, meta_gradient
from lamanas_core.search.alpha import KINDS, CellWeights, cell_weights
from lamanas_core.search.normalisation import Statistics

END_TEMPERATURE = 0.05
ANNEALED_BY = 0.15  # of the warm-up
# The size that α is pressed down to, as a share of the supernet's; how hard; the share at which an operation counts a
# quarter; and what an operation costs beside its parameters, in parameters (a pass over the images is not free).
TARGET_SIZE = 0.3
PRESSURE = 3.0
FAINT = 0.05
PASS_COST = 2000


def temperature(done: float) -> float:
    """Softmax temperature of α after the share ``done`` (0 to 1) of the warm-up: 1.0 down to 0.05, geometrically."""
    return float(END_TEMPERATURE ** min(1.0, done / ANNEALED_BY))


def warm_up_gradient(learner: Learner, parameters: Parameters, task: Task, done: float) -> MetaGradient:
    """Gradient of a prototype loss taken both ways, and of the network's excess over its target size.

    Every image serves twice: the query images are classified by the support set's prototypes and the other way round.
    One pass for both, normalised by the statistics of both: at this stage that is only a larger sample of the task.
    ``done``: share of the warm-up that lies behind, 0 to 1.
    """
    live = parameters.map(lambda tensor: tensor.detach().requires_grad_())
    network = learner.config.network
    weights = cell_weights(live.alpha, network, temperature=temperature(done), threshold=network.train_threshold)
    n = len(task.support)
    images = torch.cat([task.support, task.query])
    features = learner.features(live.theta, weights, images, Statistics(len(images)))
    sides = [(features[:n], task.support_labels), (features[n:], task.query_labels)]
    entropies = []
    for (made_of, labels), (asked, truth) in (sides, sides[::-1]):
        head = prototype_head(made_of, labels, task.ways, live.log_scale.exp())
        entropies.append(F.cross_entropy(head.logits(asked), truth))
    loss = (entropies[0] + entropies[1]) / 2
    excess = F.relu(size(live.theta, weights, network) - TARGET_SIZE)
    return meta_gradient(loss, live, PRESSURE * min(1.0, done / ANNEALED_BY) * excess)


def size(theta: Mapping[str, Tensor], weights: CellWeights, config: NetworkConfig) -> Tensor:
    """A scalar 0..1: the share of the supernet in use, an operation of weight w counting log(1 + 20 w) / log(21).

    Concave, so that one whole operation weighs less than two halves: pressing on it drives α apart.
    """
    always, in_edges = 0, {}
    for kind in KINDS:
        in_edges[kind] = torch.full_like(weights.kinds[kind].weights, PASS_COST * config.cells.count(kind))
    for name, value in theta.items():
        path = name.split(".")
        if len(path) > 3 and path[2] == "edges":
            in_edges[config.cells[int(path[1])]][int(path[3]), int(path[4])] += value.numel()
        else:
            always += value.numel()
    counted = [torch.log1p(weights.kinds[kind].weights / FAINT) / math.log1p(1 / FAINT) for kind in KINDS]
    used = torch.stack([(count * in_edges[kind]).sum() for count, kind in zip(counted, KINDS, strict=True)]).sum()
    return (always + used) / (always + torch.stack([cost.sum() for cost in in_edges.values()]).sum())
