"""Algorithm 2 (Reptile): parameter differences as meta-gradients, and proxy losses for φ (Eqs. 7 and 8)."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp

from lamanas_core.adapt.inner import Point, Step, TaskLearner, take_step
from lamanas_core.adapt.parameters import Parameters, Tensors
from lamanas_core.config import PhiSteps, Proxy
from lamanas_core.data.episodes import Episode
from lamanas_core.heads.base import Support
from lamanas_core.meta.gradient import MetaGradient, inner_steps, query_logits
from lamanas_core.search.normalisation import Batch

# Two forward passes count as equal if their logits differ by at most this fraction of the largest: rounding to bfloat16
# changes them by less, a different drop-path or a different batch's moments by more.
SAME_LOGITS = 0.05


def reptile(
    learner: TaskLearner,
    parameters: Parameters,
    episode: Episode,
    count: int,
    generator: torch.Generator,
    proxy: Proxy,
    phi_steps: PhiSteps,
    phi_rate: float,
) -> MetaGradient:
    """The meta-gradient of Algorithm 2 for one task: the differences θ - θ_i*, α - α_i* and φ - φ_i* after ``count``
    inner steps; 0 for the step sizes and the scale.

    The inner steps use the initial φ (Eq. 2 keeps it fixed). φ_i moves on its proxy loss (``proxy_value``) with the
    rate ``phi_rate`` (χ_task): ``phi_steps`` "once" is a step of gradient descent on the whole support set after the
    inner steps, as Algorithm 2 is printed; "each_step" is a step of Adam at each inner step. By gradient descent φ
    hardly changes, whatever the proxy, since the gradients of the LSTM's parameters are too small.

    ``generator`` draws minibatches and drop-path. The images of ``episode`` are float in 0..1. ``MetaGradient.loss`` is
    the cross-entropy of the queries after the steps.
    """
    theta, alpha = parameters.theta, parameters.alpha
    phi = {name: value.detach().clone().requires_grad_() for name, value in parameters.phi.items()}
    moving = replace(parameters, phi=phi)
    optimizer: torch.optim.Optimizer | None = None
    if phi:
        kind = torch.optim.SGD if phi_steps == "once" else torch.optim.Adam
        optimizer = kind(phi.values(), phi_rate)
    keep_graphs = optimizer is not None and proxy != "mse" and not learner.head.leaves_one_out
    kept = keep_graphs and phi_steps == "each_step"
    for step in inner_steps(learner, parameters, episode, count, generator, "none", keep_graphs=kept):
        if optimizer is not None and phi_steps == "each_step":
            _move_phi(optimizer, phi, proxy_value(learner, moving, episode, proxy, step))
        theta, alpha = step.theta, step.alpha
    if optimizer is not None and phi_steps == "once":
        end = _end(learner, parameters, episode, theta, alpha, count, generator, keep_graphs=keep_graphs)
        _move_phi(optimizer, phi, proxy_value(learner, moving, episode, proxy, end))
    with torch.no_grad():
        loss = F.cross_entropy(query_logits(learner, parameters, theta, alpha, episode), episode.query_labels)
    after = replace(parameters, theta=theta, alpha=alpha, phi=phi).named()
    differences = {name: (old - after[name]).detach() for name, old in parameters.named().items()}
    return MetaGradient(differences, float(loss.detach()))


def _move_phi(optimizer: torch.optim.Optimizer, phi: Tensors, value: Tensor) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(value, inputs=list(phi.values()))
    optimizer.step()


def _end(
    learner: TaskLearner,
    parameters: Parameters,
    episode: Episode,
    theta: Tensors,
    alpha: Tensors,
    count: int,
    generator: torch.Generator,
    *,
    keep_graphs: bool,
) -> Step:
    """A step at θ_i* and α_i* on the whole support set, which is not taken: φ's proxy loss is measured there."""
    rows = torch.arange(len(episode.support), device=episode.support.device)
    mixing = learner.mixing(max(count - 1, 0), count, generator)
    support, labels, at = episode.support, episode.support_labels, Point(theta, alpha)
    return take_step(
        learner,
        parameters,
        at,
        support,
        labels,
        episode.ways,
        count,
        max(count, 1),
        rows,
        mixing,
        "none",
        keep_graphs=keep_graphs,
    )[0]


def proxy_value(learner: TaskLearner, parameters: Parameters, episode: Episode, proxy: Proxy, step: Step) -> Tensor:
    """The proxy loss of φ at an inner step, a scalar to be minimised.

    "mse": Eq. 7, (L_φ - H)², where H is cross-entropy. "inner_product": Eq. 8, the negative inner products of the
    gradients of L_φ and H. "cosine": the same with normalised factors (see ``_logit_change_along_entropy``).

    For a learned head, H is taken on the support set, as in the paper. For a head that is fitted to the support set,
    cross-entropy on it would be about 0, so H is taken on the query set (D_val in Eq. 6). Eq. 8 with a learned head
    needs the step's graph (``keep_graphs``) and frees it. Raises AssertionError if the step's logits cannot be
    reproduced.
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
    change = _logit_change_along_entropy(learner, fixed, images, labels, episode.ways, step, entropy)
    z = step.logits.detach().requires_grad_()
    inner_loss = learner.learned_loss(parameters.phi, z, labels, step.progress, step.loss_state)[0]
    (slope,) = torch.autograd.grad(inner_loss, z, create_graph=True)
    product: Tensor = (slope * change).sum()
    if proxy == "cosine":
        product = product / (slope.norm() * change.norm() + 1e-12)
    return -product


def _logit_change_along_entropy(
    learner: TaskLearner, fixed: Parameters, images: Tensor, labels: Tensor, ways: int, step: Step, entropy: Tensor
) -> Tensor:
    """J g, (n, ways): the directional derivative of the step's logits z along g = (λ ∇_θ H, ξ ∇_α H).

    J is the Jacobian of z with respect to (θ, α). Eq. 8 is -⟨∇L_φ, g⟩. Since L_φ depends on θ and α only through z, and
    g is constant, ⟨∇L_φ, g⟩ = ⟨∂L_φ/∂z, J g⟩, so only the loss network is differentiated twice. λ and ξ are divided by
    the geometric mean of λ, a constant factor that is left to φ's own step size. "cosine" divides by the norms of
    ∂L_φ/∂z and J g, because Eq. 8 as printed is unbounded in the scale of φ.
    """
    theta, alpha = step.before

    def logits(theta: Tensors, alpha: Tensors) -> Tensor:
        features, _ = learner.embed(theta, alpha, images, batch=Batch(double_backward=True), mixing=step.mixing)
        return learner.support_logits(theta, fixed.log_scale, Support(features, labels, ways))

    gradients = torch.autograd.grad(entropy, [*theta.values(), *alpha.values()], materialize_grads=True)
    rates = (torch.cat(step.log_rates).detach() - step.log_rates[0].detach().mean()).exp().unbind()
    weighted = [rate * gradient.detach() for rate, gradient in zip(rates, gradients, strict=True)]
    direction = (
        dict(zip(theta, weighted[: len(theta)], strict=True)),
        dict(zip(alpha, weighted[len(theta) :], strict=True)),
    )
    point = ({n: v.detach() for n, v in theta.items()}, {n: v.detach() for n, v in alpha.items()})
    reproduced, change, *_ = jvp(logits, point, direction)
    if (reproduced - step.logits).abs().max() > SAME_LOGITS * step.logits.abs().max():
        raise AssertionError("the logits differ from the step's: Eq. 8 needs the same drop-path and moments")
    detached_change: Tensor = change.detach()
    return detached_change
