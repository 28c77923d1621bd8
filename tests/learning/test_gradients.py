"""All gradients of the paper against finite differences or autograd, in float64 on a tiny network."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from lamanas_core.adapt.inner import TaskLearner, steps
from lamanas_core.adapt.parameters import Parameters
from lamanas_core.heads.prototypes import leave_one_out_logits
from lamanas_core.meta.gradient import query_logits
from lamanas_core.meta.maml import maml
from lamanas_core.meta.reptile import proxy_value, reptile
from tests.learning.helpers import MINIATURE, first_step, float64_episode, float64_learner

STEP = 1e-6


def outer_loss(learner: TaskLearner, parameters: Parameters, count: int) -> float:
    """The outer loss after ``count`` inner steps, computed without meta-gradients."""
    task = float64_episode()
    theta, alpha = parameters.theta, parameters.alpha
    for step in steps(learner, parameters, task.support, task.support_labels, task.ways, count):
        theta, alpha = step.theta, step.alpha
    return float(F.cross_entropy(query_logits(learner, parameters, theta, alpha, task), task.query_labels).detach())


@pytest.mark.parametrize("loss", ["lstm", "fnn"])
def test_maml_gradients_equal_finite_differences_through_all_steps(loss: str) -> None:
    config = replace(MINIATURE, task_learner=replace(MINIATURE.task_learner, loss=loss))  # type: ignore[arg-type]
    learner, parameters = float64_learner(config)
    gradients = maml(learner, parameters, float64_episode(), 3, torch.Generator()).gradients
    generator = torch.Generator().manual_seed(1)
    for part in ("theta.", "alpha.", "phi.", "rates.theta", "rates.alpha", "scale"):
        names = [name for name in gradients if name.startswith(part)]
        direction = {n: torch.randn(gradients[n].shape, generator=generator, dtype=torch.float64) for n in names}

        def moved(sign: int, direction: dict[str, Tensor] = direction) -> Parameters:
            named = parameters.named()
            return Parameters.from_named({n: v + sign * STEP * direction.get(n, 0.0) for n, v in named.items()})

        difference = (outer_loss(learner, moved(1), 3) - outer_loss(learner, moved(-1), 3)) / (2 * STEP)
        exact = sum(float((gradients[n] * direction[n]).sum()) for n in names)
        assert exact == pytest.approx(difference, rel=2e-3, abs=1e-8), part
        assert exact != 0, part


def test_one_backward_pass_gives_the_separate_gradients_of_weights_and_architecture() -> None:
    learner, parameters = float64_learner()
    task = float64_episode()
    step = next(steps(learner, parameters, task.support, task.support_labels, task.ways, 1))
    scale = parameters.log_scale.exp() * learner.config.task_learner.logit_scale

    def loss(theta: dict[str, Tensor], alpha: dict[str, Tensor]) -> Tensor:
        features, _ = learner.embed(theta, alpha, task.support)
        logits = leave_one_out_logits(features, task.support_labels, task.ways, scale)
        value: Tensor = functional_call(learner.loss, parameters.phi, (logits, task.support_labels, 0.0, None))[0]
        return value

    for old, new, rates in (
        (parameters.theta, step.theta, parameters.theta_log_rates),
        (parameters.alpha, step.alpha, parameters.alpha_log_rates),
    ):
        leaves = {name: value.clone().requires_grad_() for name, value in old.items()}
        value = loss(leaves, parameters.alpha) if old is parameters.theta else loss(parameters.theta, leaves)
        gradients = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        for i, (name, gradient) in enumerate(zip(leaves, gradients, strict=True)):
            torch.testing.assert_close(new[name], old[name] - rates[0, i].exp() * gradient)


@pytest.mark.parametrize("proxy", ["inner_product", "cosine"])
def test_the_proxys_value_and_gradient_equal_double_backward(proxy: Literal["inner_product", "cosine"]) -> None:
    learner, parameters = float64_learner()
    task = float64_episode()
    live = replace(parameters, phi={n: v.clone().requires_grad_() for n, v in parameters.phi.items()})
    forward_mode = proxy_value(learner, live, task, proxy, first_step(learner, parameters, task))
    theta = {n: v.clone().requires_grad_() for n, v in parameters.theta.items()}
    alpha = {n: v.clone().requires_grad_() for n, v in parameters.alpha.items()}
    variables = [*theta.values(), *alpha.values()]
    entropy = F.cross_entropy(query_logits(learner, parameters, theta, alpha, task), task.query_labels)
    fixed = [g.detach() for g in torch.autograd.grad(entropy, variables, materialize_grads=True)]
    scale = parameters.log_scale.exp() * learner.config.task_learner.logit_scale
    features, _ = learner.embed(theta, alpha, task.support)
    logits = leave_one_out_logits(features, task.support_labels, task.ways, scale)
    loss: Tensor = functional_call(learner.loss, live.phi, (logits, task.support_labels, 0.0, None))[0]
    slopes = torch.autograd.grad(loss, variables, create_graph=True, materialize_grads=True)
    twice = -sum_of_products(slopes, fixed)
    if proxy == "cosine":
        (slope,) = torch.autograd.grad(loss, logits, create_graph=True)
        twice = twice / (slope.norm() * change_along(fixed, logits, variables).norm())
    torch.testing.assert_close(forward_mode, twice, rtol=1e-9, atol=0.0)
    names, leaves = list(live.phi), list(live.phi.values())
    found, expected = (
        torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True) for value in (forward_mode, twice)
    )
    for name, a, b in zip(names, found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-10, msg=name)
    assert any(bool(gradient.abs().max() > 1e-6) for gradient in found)


def sum_of_products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()


def change_along(direction: Sequence[Tensor], logits: Tensor, variables: Sequence[Tensor]) -> Tensor:
    """J g with reverse mode only: ⟨Jᵀv, g⟩ is linear in v, and its gradient with respect to v is J g."""
    v = torch.zeros_like(logits).requires_grad_()
    backward = torch.autograd.grad(logits, variables, v, create_graph=True, materialize_grads=True)
    return torch.autograd.grad(sum_of_products(backward, direction), v, retain_graph=True)[0]


@pytest.mark.parametrize("proxy", ["mse", "inner_product", "cosine"])
def test_reptile_changes_weights_architecture_and_loss(proxy: str) -> None:
    learner, parameters = float64_learner()
    asked = reptile(learner, parameters, float64_episode(), 2, torch.Generator(), proxy, "each_step", 0.01).gradients  # type: ignore[arg-type]
    for part in ("theta.", "alpha.", "phi."):
        assert any(bool(value.abs().max() > 0) for name, value in asked.items() if name.startswith(part)), part
        assert all(bool(value.isfinite().all()) for value in asked.values())


def test_reptile_trains_the_loss_with_its_state_carried_along_the_steps() -> None:
    learner, parameters = float64_learner()
    asked = reptile(learner, parameters, float64_episode(), 2, torch.Generator(), "cosine", "each_step", 0.01).gradients
    assert asked["phi.hidden.weight_hh"].abs().max() > 0


def test_the_gradient_of_reptile_is_the_difference_after_plain_steps() -> None:
    learner, parameters = float64_learner(
        replace(MINIATURE, task_learner=replace(MINIATURE.task_learner, loss="cross_entropy"))
    )
    task = float64_episode()
    asked = reptile(learner, parameters, task, 3, torch.Generator(), "mse", "each_step", 0.01).gradients
    last = list(steps(learner, parameters, task.support, task.support_labels, task.ways, 3))[-1]
    for name, value in parameters.theta.items():
        torch.testing.assert_close(asked[f"theta.{name}"], value - last.theta[name])


@pytest.mark.parametrize("algorithm", [1, 2])
def test_the_outer_loss_classifies_each_query_on_its_own(algorithm: int) -> None:
    """Moments are those of the support set, so that the loss is the mean of the losses of single queries."""
    learner, parameters = float64_learner()
    task = float64_episode()

    def loss(rows: list[int]) -> float:
        asked = replace(task, queries=task.queries[rows], query_labels=task.query_labels[rows])
        if algorithm == 1:
            return maml(learner, parameters, asked, 1, torch.Generator()).loss
        return reptile(learner, parameters, asked, 1, torch.Generator(), "mse", "each_step", 0.01).loss

    everything = list(range(len(task.queries)))
    alone = [loss([row]) for row in everything]
    assert max(alone) - min(alone) > 0.1
    assert loss(everything) == pytest.approx(sum(alone) / len(alone))


def test_the_inner_loop_does_not_change_the_loss_network() -> None:
    learner, parameters = float64_learner()
    before = {name: value.clone() for name, value in parameters.phi.items()}
    task = float64_episode()
    for _ in steps(learner, parameters, task.support, task.support_labels, task.ways, 3):
        pass
    assert all(torch.equal(before[name], value) for name, value in parameters.phi.items())
