"""Algorithm 2 (Reptile): where the steps led, and φ moved by a proxy of the loss (Eq. 7 and 8)."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp

from lamanas_core.adapt.inner import Step, TaskLearner
from lamanas_core.adapt.parameters import Parameters, Tensors
from lamanas_core.config import Proxy
from lamanas_core.data.episodes import Episode
from lamanas_core.meta.gradient import MetaGradient, inner_steps, query_logits
from lamanas_core.search.normalisation import Batch

# Two forward passes are of one network if their logits differ by no more than this share of the largest: bfloat16
# rounds by less, another dropped path or another batch's statistics change more.
SAME_LOGITS = 0.05


def reptile(
    learner: TaskLearner,
    parameters: Parameters,
    episode: Episode,
    count: int,
    generator: torch.Generator,
    proxy: Proxy,
    phi_rate: float,
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
    of_the_step = proxy != "mse" and not learner.head.leaves_one_out
    taken = inner_steps(learner, parameters, episode, count, generator, "none", keep_graphs=bool(phi) and of_the_step)
    for step in taken:
        if of_phi is not None:
            of_phi.zero_grad()
            value = proxy_value(learner, replace(parameters, phi=phi), episode, proxy, step)
            torch.autograd.backward(value, inputs=list(phi.values()))
            of_phi.step()
        theta, alpha = step.theta, step.alpha
    with torch.no_grad():
        loss = F.cross_entropy(query_logits(learner, parameters, theta, alpha, episode), episode.query_labels)
    after = replace(parameters, theta=theta, alpha=alpha, phi=phi).named()
    differences = {name: (old - after[name]).detach() for name, old in parameters.named().items()}
    return MetaGradient(differences, float(loss.detach()))


def proxy_value(learner: TaskLearner, parameters: Parameters, episode: Episode, proxy: Proxy, step: Step) -> Tensor:
    """What φ is to make small at a step: Eq. 7 (``mse``), (L_φ - H)², or Eq. 8 (``inner_product``, ``cosine``).

    H is taken where it means something: on the support set, as printed, for a head that is learned; on the query set
    (D_val of Eq. 6) for one that is made of the support set, on which it would be zero. For a learned head the step's
    graph must have been kept, and is used up by Eq. 8. Raises AssertionError where Eq. 8's two products are not of the
    same logits.
    """
    theta, alpha = step.before
    images, labels = episode.support[step.rows], episode.support_labels[step.rows]
    fixed = replace(parameters, log_scale=parameters.log_scale.detach())
    if not learner.head.leaves_one_out:
        predicted, truth = step.logits, labels
    else:
        batch = replace(episode, support=images, support_labels=labels)
        predicted, truth = query_logits(learner, fixed, theta, alpha, batch), episode.query_labels
    entropy = F.cross_entropy(predicted, truth)
    if proxy == "mse":
        learned = learner.learned_loss(parameters.phi, predicted.detach(), truth, step.progress)[0]
        return (learned - entropy.detach()).square()
    change = _change_along_entropy(learner, fixed, images, labels, episode.ways, step, entropy)
    z = step.logits.detach().requires_grad_()
    inner = learner.learned_loss(parameters.phi, z, labels, step.progress, step.loss_state)[0]
    (slope,) = torch.autograd.grad(inner, z, create_graph=True)
    product: Tensor = (slope * change).sum()
    if proxy == "cosine":
        product = product / (slope.norm() * change.norm() + 1e-12)
    return -product


def _change_along_entropy(
    learner: TaskLearner, fixed: Parameters, images: Tensor, labels: Tensor, ways: int, step: Step, entropy: Tensor
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
        features, _ = learner.embed(theta, alpha, images, batch=Batch(double_backward=True), mixing=step.mixing)
        return learner.support_logits(theta, fixed.log_scale, features, labels, ways)

    gradients = torch.autograd.grad(entropy, [*theta.values(), *alpha.values()], materialize_grads=True)
    rates = (torch.cat(step.log_rates).detach() - step.log_rates[0].detach().mean()).exp().unbind()
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
