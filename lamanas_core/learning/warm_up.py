"""Step 1 of the training schedule: θ and α by a plain prototype loss, no adaptation inside."""

import torch
import torch.nn.functional as F
from torch.func import functional_call

from lamanas_core.learning.architecture import cell_weights
from lamanas_core.learning.meta_learners import MetaGradient, Task
from lamanas_core.learning.normalisation import Statistics
from lamanas_core.learning.prototypes import logits, prototypes
from lamanas_core.learning.task_learner import Learner, Parameters

TRAIN_THRESHOLD = 0.01
END_TEMPERATURE = 0.05
ANNEALED_BY = 0.25  # of the warm-up


def temperature(done: float) -> float:
    """Softmax temperature of α after the share ``done`` (0 to 1) of the warm-up: 1.0 down to 0.05, geometrically."""
    return float(END_TEMPERATURE ** min(1.0, done / ANNEALED_BY))


def warm_up_gradient(learner: Learner, parameters: Parameters, task: Task, temperature: float) -> MetaGradient:
    """Gradient of the query images' cross-entropy against the support set's prototypes.

    One pass for both: the normalisation takes its statistics from the support rows alone.
    """
    live = parameters.map(lambda tensor: tensor.detach().requires_grad_())
    weights = cell_weights(live.alpha, learner.config.network, temperature=temperature, threshold=TRAIN_THRESHOLD)
    n = len(task.support)
    inputs = (torch.cat([task.support, task.query]), weights, Statistics(n))
    features = functional_call(learner.network, live.theta, inputs)
    centres = prototypes(features[:n], task.support_labels, task.ways)
    predicted = logits(features[n:], centres, live.log_scale.exp())
    loss = F.cross_entropy(predicted, task.query_labels)
    named = live.named()
    gradients = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    accuracy = float((predicted.argmax(1) == task.query_labels).float().mean())
    return MetaGradient(dict(zip(named, gradients, strict=True)), float(loss.detach()), accuracy)
