"""Meta learners Ψ: the change that one task asks of θ, α, φ, step sizes and scale (Algorithms 1 and 2)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, jvp

from lamanas_core.learning.losses import State
from lamanas_core.learning.normalisation import Statistics
from lamanas_core.learning.prototypes import leave_one_out_logits, logits, prototypes
from lamanas_core.learning.task_learner import Learner, Parameters, Tensors, steps

Proxy = Literal["mse", "inner_product"]


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
    """Logits of the query images under θ, α, statistics and prototypes taken from the support set."""
    images = torch.cat([task.support, task.query])
    n = len(task.support)
    features = learner.embed(theta, alpha, images, Statistics(n))
    return logits(features[n:], prototypes(features[:n], task.support_labels, task.ways), parameters.log_scale.exp())


def maml(learner: Learner, parameters: Parameters, task: Task, count: int) -> MetaGradient:
    """Algorithm 1: the exact gradient of the query cross-entropy after ``count`` steps, through all of them."""
    live = parameters.map(lambda tensor: tensor.detach().requires_grad_())
    theta, alpha = live.theta, live.alpha
    for step in steps(learner, live, task.support, task.support_labels, task.ways, count, differentiable=True):
        theta, alpha = step.theta, step.alpha
    predicted = query_logits(learner, live, theta, alpha, task)
    loss = F.cross_entropy(predicted, task.query_labels)
    named = live.named()
    gradients = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    return MetaGradient(dict(zip(named, gradients, strict=True)), float(loss.detach()))


def reptile(
    learner: Learner, parameters: Parameters, task: Task, count: int, proxy: Proxy, phi_rate: float
) -> MetaGradient:
    """Algorithm 2: θ - θ_K, α - α_K and φ - φ_K as gradients, φ moved by its proxy at every step.

    The steps themselves are taken with φ as it was at the start (Eq. 2 holds it fixed), its state running along.
    The proxy's H is taken on the query set (D_val of Eq. 6): on the support set of a prototype head it is zero.
    """
    theta, alpha = parameters.theta, parameters.alpha
    phi = {name: value.detach().requires_grad_() for name, value in parameters.phi.items()}
    taken = steps(learner, parameters, task.support, task.support_labels, task.ways, count)
    for k, step in enumerate(taken):
        if phi:
            live = Parameters(theta, alpha, phi, parameters.theta_rates, parameters.alpha_rates, parameters.log_scale)
            value = proxy_value(learner, live, task, proxy, k / count, step.state)
            gradients = torch.autograd.grad(value, list(phi.values()), materialize_grads=True)
            moved = zip(phi.items(), gradients, strict=True)
            phi = {name: (old - phi_rate * gradient).detach().requires_grad_() for (name, old), gradient in moved}
        theta, alpha = step.theta, step.alpha
    with torch.no_grad():
        predicted = query_logits(learner, parameters, theta, alpha, task)
        loss = F.cross_entropy(predicted, task.query_labels)
    after = Parameters(theta, alpha, phi, parameters.theta_rates, parameters.alpha_rates, parameters.log_scale).named()
    differences = {name: (old - after[name]).detach() for name, old in parameters.named().items()}
    return MetaGradient(differences, float(loss.detach()))


def proxy_value(
    learner: Learner, parameters: Parameters, task: Task, proxy: Proxy, progress: float, state: State = None
) -> Tensor:
    """What φ is to make small: Eq. 7, or Eq. 8 in its cosine form (the printed one grows without bound in φ's scale).

    ``mse``: (L_φ - H)² on the query logits. ``inner_product``: minus the cosine of ∇L_φ (support) and ∇H (query), by
    ⟨∇_θ L_φ, g⟩ = ⟨∂L_φ/∂z, J g⟩ with g = ∇H fixed, so that only the loss network is differentiated twice. L_φ must
    reach θ and α through the logits z alone, which the way it is called here ensures.
    """
    scale = parameters.log_scale.exp().detach()
    theta = {name: value.detach().requires_grad_() for name, value in parameters.theta.items()}
    alpha = {name: value.detach().requires_grad_() for name, value in parameters.alpha.items()}
    predicted = query_logits(learner, parameters, theta, alpha, task)
    entropy = F.cross_entropy(predicted, task.query_labels)
    if proxy == "mse":
        outer: tuple[Tensor, object] = functional_call(
            learner.loss, parameters.phi, (predicted.detach(), task.query_labels, progress, None)
        )
        return (outer[0] - entropy.detach()).square()
    variables = [*theta.values(), *alpha.values()]
    gradients = [g.detach() for g in torch.autograd.grad(entropy, variables, materialize_grads=True)]
    direction = (
        dict(zip(theta, gradients[: len(theta)], strict=True)),
        dict(zip(alpha, gradients[len(theta) :], strict=True)),
    )

    def support_logits(theta: Tensors, alpha: Tensors) -> Tensor:
        features = learner.embed(theta, alpha, task.support, Statistics(len(task.support)))
        tempered = scale * learner.config.task_learner.logit_scale
        return leave_one_out_logits(features, task.support_labels, task.ways, tempered)

    point = ({n: v.detach() for n, v in theta.items()}, {n: v.detach() for n, v in alpha.items()})
    z, change = jvp(support_logits, point, direction)[:2]
    z = z.detach().requires_grad_()
    inner: tuple[Tensor, object] = functional_call(
        learner.loss, parameters.phi, (z, task.support_labels, progress, state)
    )
    (slope,) = torch.autograd.grad(inner[0], z, create_graph=True)
    length = slope.norm() * change.detach().norm()
    cosine: Tensor = (slope * change.detach()).sum() / (length + 1e-12)
    return -cosine
