"""Algorithm 2 (Reptile): where the steps led, and φ moved by a proxy of the loss (Eq. 7 and 8)."""

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp

from lamanas_core.adapt.inner import Learner, Step, learned_loss
from lamanas_core.adapt.parameters import Parameters, Tensors
from lamanas_core.heads import support_logits
from lamanas_core.meta.gradient import MetaGradient, Task, inner_steps, query_logits
from lamanas_core.search.normalisation import Statistics

Proxy = Literal["mse", "inner_product", "cosine"]
# Two forward passes are of one network if their logits differ by no more than this share of the largest: bfloat16
# rounds by less, another dropped path or another batch's statistics change more.
SAME_LOGITS = 0.05


def reptile(
    learner: Learner,
    parameters: Parameters,
    task: Task,
    count: int,
    generator: torch.Generator,
    proxy: Proxy,
    phi_rate: float = 0.01,
) -> MetaGradient:
    """Algorithm 2: θ - θ_K, α - α_K and φ - φ_K as gradients, φ moved by its proxy at every step.

    By what it is moved (χ_task) the paper leaves open. By Adam, as its public code has it: an LSTM's loss has so small
    a slope that gradient descent leaves it where it is, whatever the proxy.

    The steps themselves are taken with φ as it was at the start (Eq. 2 holds it fixed), its state running along.
    ``generator`` draws batches and dropped paths.
    """
    theta, alpha = parameters.theta, parameters.alpha
    phi = {name: value.detach().clone().requires_grad_() for name, value in parameters.phi.items()}
    of_phi = torch.optim.Adam(phi.values(), phi_rate) if phi else None
    of_the_step = proxy != "mse" and learner.config.network.head == "linear"
    taken = inner_steps(learner, parameters, task, count, generator, "none", keep_graphs=bool(phi) and of_the_step)
    for step in taken:
        if of_phi is not None:
            of_phi.zero_grad()
            value = proxy_value(learner, replace(parameters, phi=phi), task, proxy, step)
            torch.autograd.backward(value, inputs=list(phi.values()))
            of_phi.step()
        theta, alpha = step.theta, step.alpha
    with torch.no_grad():
        loss = F.cross_entropy(query_logits(learner, parameters, theta, alpha, task), task.query_labels)
    after = replace(parameters, theta=theta, alpha=alpha, phi=phi).named()
    differences = {name: (old - after[name]).detach() for name, old in parameters.named().items()}
    return MetaGradient(differences, float(loss.detach()))


def proxy_value(learner: Learner, parameters: Parameters, task: Task, proxy: Proxy, step: Step) -> Tensor:
    """What φ is to make small at a step: Eq. 7 (``mse``), (L_φ - H)², or Eq. 8 (``inner_product``, ``cosine``).

    H is taken where it means something: for a linear head on the support set, as printed; for prototypes on the query
    set (D_val of Eq. 6), since on the images that made the prototypes it is zero. For a linear head the step's graph
    must have been kept, and is used up by Eq. 8. Raises AssertionError where Eq. 8's two products are not of the same
    logits.
    """
    theta, alpha = step.before
    images, labels = task.support[step.rows], task.support_labels[step.rows]
    fixed = replace(parameters, log_scale=parameters.log_scale.detach())
    if learner.config.network.head == "linear":
        predicted, truth = step.logits, labels
    else:
        batch = replace(task, support=images, support_labels=labels)
        predicted, truth = query_logits(learner, fixed, theta, alpha, batch), task.query_labels
    entropy = F.cross_entropy(predicted, truth)
    if proxy == "mse":
        learned = learned_loss(learner, parameters.phi, predicted.detach(), truth, step.progress)[0]
        return (learned - entropy.detach()).square()
    change = _change_along_entropy(learner, fixed, images, labels, task.ways, step, entropy)
    z = step.logits.detach().requires_grad_()
    inner = learned_loss(learner, parameters.phi, z, labels, step.progress, step.state)[0]
    (slope,) = torch.autograd.grad(inner, z, create_graph=True)
    product: Tensor = (slope * change).sum()
    if proxy == "cosine":
        product = product / (slope.norm() * change.norm() + 1e-12)
    return -product


def _change_along_entropy(
    learner: Learner, fixed: Parameters, images: Tensor, labels: Tensor, ways: int, step: Step, entropy: Tensor
) -> Tensor:
    """J g, (n, ways): what the step's logits z change by along g = (λ ∇_θ H, ξ ∇_α H).

    Eq. 8 is minus the inner product of ∇L_φ and g, and ⟨∇L_φ, g⟩ = ⟨∂L_φ/∂z, J g⟩ if L_φ reaches θ and α through z
    alone (it is given nothing else), g is fixed, and z is the same in both products: so only the loss network is
    differentiated twice. λ and ξ are taken relative to the mean λ; that is left to the size of φ's own steps.
    ``cosine`` divides by the lengths of both factors, which are those of logits, since the printed form grows without
    bound in φ's scale.
    """
    theta, alpha = step.before

    def logits(theta: Tensors, alpha: Tensors) -> Tensor:
        features = learner.embed(theta, alpha, images, Statistics(len(images), twice=True), step.mixing)
        return support_logits(learner.config, theta, fixed.log_scale, features, labels, ways)

    gradients = torch.autograd.grad(entropy, [*theta.values(), *alpha.values()], materialize_grads=True)
    rates = (torch.cat(step.rates).detach() - step.rates[0].detach().mean()).exp().unbind()
    weighted = [rate * gradient.detach() for rate, gradient in zip(rates, gradients, strict=True)]
    direction = (
        dict(zip(theta, weighted[: len(theta)], strict=True)),
        dict(zip(alpha, weighted[len(theta) :], strict=True)),
    )
    point = ({n: v.detach() for n, v in theta.items()}, {n: v.detach() for n, v in alpha.items()})
    same, change, *_ = jvp(logits, point, direction)
    if (same - step.logits).abs().max() > SAME_LOGITS * step.logits.abs().max():
        raise AssertionError("Eq. 8 at another network than the step's: its dropped paths or statistics differ")
    along: Tensor = change.detach()
    return along
