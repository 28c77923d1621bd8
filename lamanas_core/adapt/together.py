"""The inner loop of several episodes of equal shape in one batch, for GPUs. The results equal those of each alone."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lamanas_core.adapt.inner import Evaluate, TaskLearner, adam, in_a_row, leaves, loss_at, moved_along
from lamanas_core.adapt.parameters import Parameters, Tensors
from lamanas_core.search.normalisation import Batch


def steps_together(
    learner: TaskLearner, parameters: Parameters, support: Tensor, labels: Tensor, ways: int, count: int
) -> tuple[list[Parameters], Tensor]:
    """``count`` inner steps of Eq. 2 on each of E episodes.

    ``support``: float (E, n, c, h, w); ``labels``: int64 (E, n) in 0..``ways``-1. Returns the adapted parameters of
    each episode, and the losses L_φ, (count, E), before each step. Every step uses the whole support set.

    θ and α are stacked, and dropped operations are masked, so that each episode can have its own architecture. The
    results equal those of ``steps`` up to rounding (1e-5 in float32 on a CPU); their last bits depend on E.
    """
    episodes = len(support)
    theta, alpha = _stacked(parameters.theta, episodes), _stacked(parameters.alpha, episodes)
    state: tuple[Tensor, ...] = ()
    squares: Tensor | None = None
    losses = [support.new_zeros(0, episodes)]
    for k in range(count):
        theta, alpha = leaves(theta), leaves(alpha)
        mixing = learner.mixing(k, count, None, masked=True)
        evaluate = loss_at(learner, parameters, ways, k / count, mixing, Batch(stacked=True))
        loss, *after = torch.func.vmap(_tensors_only(evaluate))(theta, alpha, support, labels, *state)
        state = tuple(tensor.detach() for tensor in after)
        # An episode's loss depends only on its own θ and α, so the sum's gradient consists of the episodes' gradients.
        variables = [*theta.values(), *alpha.values()]
        direction = in_a_row(torch.autograd.grad(loss.sum(), variables, materialize_grads=True))
        if learner.config.task_learner.optimizer == "adam":
            direction, squares = adam(direction, squares, k + 1)
        with torch.no_grad():
            theta, alpha = moved_along(theta, alpha, direction, parameters.log_rates(k))
        losses.append(loss.detach()[None])
    apart = [replace(parameters, theta=_of(theta, number), alpha=_of(alpha, number)) for number in range(episodes)]
    return apart, torch.cat(losses)


def _tensors_only(evaluate: Evaluate) -> Callable[..., tuple[Tensor, ...]]:
    """``evaluate`` with tensors only, as ``vmap`` requires: the loss network's state as two tensors or none."""

    def evaluated(theta: Tensors, alpha: Tensors, images: Tensor, labels: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        loss, _, after = evaluate(theta, alpha, images, labels, (state[0], state[1]) if state else None)
        return (loss, *(after or ()))

    return evaluated


def _stacked(tensors: Tensors, episodes: int) -> Tensors:
    return {name: value.detach().expand(episodes, *value.shape) for name, value in tensors.items()}


def _of(stacked: Tensors, number: int) -> Tensors:
    return {name: value[number].detach() for name, value in stacked.items()}
