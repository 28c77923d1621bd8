"""Algorithm 2 (Reptile): its outer step, its proxies, and the effect of meta-training on the loss.

``tests/benchmarks/test_plain_training.py`` compares θ, α and φ with a plain implementation.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters, Tensors, initial_parameters
from lamanas_core.config import Config, Proxy, TrainingConfig
from lamanas_core.data.episodes import Episode
from lamanas_core.meta.reptile import proxy_value, reptile
from lamanas_core.recipe import Recipe
from lamanas_core.train.loop import _apply
from lamanas_core.train.run_state import begin
from tests.learning.helpers import MINIATURE, first_step, float64_episode, float64_learner
from tests.learning.test_paper import BY_SGD, NETWORK, SMALL, generator, query_loss, with_loss

ONE_NODE = replace(BY_SGD, network=replace(BY_SGD.network, nodes=1))


def test_the_outer_step_of_reptile_is_the_mean_difference_without_clipping() -> None:
    config = TrainingConfig(preset="tiny", meta="reptile")
    run = begin(config, initial_parameters(with_loss(MINIATURE, "fnn"), 0), Recipe(), ())
    before = {name: value.detach().clone() for name, value in run.parameters.named().items()}
    learner = TaskLearner.build(with_loss(MINIATURE, "fnn"))
    tasks = [float64_episode(seed) for seed in (0, 1)]
    tasks = [replace(task, support=task.support.float(), queries=task.queries.float()) for task in tasks]
    start = run.parameters.map(lambda value: value.detach().clone())
    results = [reptile(learner, start, task, 2, generator(), "mse", "each_step", 0.01) for task in tasks]
    # Large differences: as gradients, they would be clipped to a norm of 5.
    results = [replace(one, gradients={n: 100 * v for n, v in one.gradients.items()}) for one in results]
    _apply(run, run.meta, results, 0.5, Recipe())
    for name, value in run.parameters.named().items():
        size = {"theta": 1.0, "alpha": 0.6, "phi": 1.0}.get(name.split(".")[0], 0.0)
        mean = (results[0].gradients[name] + results[1].gradients[name]) / 2
        torch.testing.assert_close(value.detach(), before[name] - 0.5 * size * mean, msg=name)
        torch.testing.assert_close(run.average.named()[name], before[name].lerp(value.detach(), 0.2), msg=name)


def test_equation_8_weights_the_two_gradients_by_the_step_sizes() -> None:
    """⟨∇L_φ, (λ ∇_θ H, ξ ∇_α H)⟩, divided by the mean of λ."""
    learner, parameters = float64_learner(with_loss(SMALL, "fnn"))
    task = float64_episode()

    def value(theta_rate: float, alpha_rate: float) -> float:
        rates = (
            torch.full_like(parameters.theta_log_rates, theta_rate),
            torch.full_like(parameters.alpha_log_rates, alpha_rate),
        )
        at = replace(parameters, theta_log_rates=rates[0].log(), alpha_log_rates=rates[1].log())
        return float(proxy_value(learner, at, task, "inner_product", first_step(learner, at, task)).detach())

    of_theta = value(0.1, 0.0)
    of_alpha = value(0.1, 0.1) - of_theta
    assert abs(of_alpha) > 1e-9
    assert value(0.1, 0.3) == pytest.approx(of_theta + 3 * of_alpha)
    assert value(0.2, 0.6) == pytest.approx(value(0.1, 0.3))


def test_equation_8_refuses_a_step_with_a_different_forward_pass() -> None:
    learner, parameters = float64_learner(replace(SMALL, network=replace(NETWORK, drop_path=0.5)))
    task = float64_episode()
    step = first_step(learner, parameters, task, 1, generator())
    other = replace(step, mixing=replace(step.mixing, dropped=None))
    with pytest.raises(AssertionError, match=r"Eq\. 8 needs the same drop-path and moments"):
        proxy_value(learner, parameters, task, "inner_product", other)


@pytest.mark.parametrize(
    ("config", "loss", "proxy", "rate"),
    [
        # Not Eq. 7: it asks for the value of H, which the bias of the output layer can provide alone.
        (BY_SGD, "fnn", "inner_product", 0.01),
        (ONE_NODE, "fnn", "cosine", 0.03),
        # A prototype head, with H on the query set.
        (MINIATURE, "lstm", "mse", 0.01),
        (MINIATURE, "lstm", "inner_product", 0.01),
        (MINIATURE, "lstm", "cosine", 0.01),
    ],
)
def test_meta_training_corrects_a_loss_of_the_wrong_sign_so_that_its_steps_help_unseen_tasks(
    config: Config, loss: str, proxy: Proxy, rate: float
) -> None:
    learner, parameters = float64_learner(with_loss(config, loss, residual=False))
    output = parameters.phi["output.weight"]
    either_way = [replace(parameters, phi=parameters.phi | {"output.weight": s * output}) for s in (1, -1)]
    start = now = min(either_way, key=lambda at: gain(learner, at))
    for seed in range(40):
        results = reptile(learner, now, same_images(seed), 1, generator(), proxy, "each_step", rate).gradients
        now = replace(now, phi={n: v - results[f"phi.{n}"] for n, v in now.phi.items()})
    assert F.cosine_similarity(slope(learner, start.phi), slope(learner, now.phi), dim=0) < 0.9
    assert gain(learner, start) < 0 < gain(learner, now)


def gain(learner: TaskLearner, at: Parameters) -> float:
    """The decrease of the queries' cross-entropy by one inner step, averaged over five unseen tasks."""
    unseen = [same_images(100 + seed) for seed in range(5)]
    return sum(query_loss(learner, at, t, 0) - query_loss(learner, at, t, 1) for t in unseen) / len(unseen)


def slope(learner: TaskLearner, phi: Tensors) -> Tensor:
    """∂L_φ/∂z on fixed logits z, flattened."""
    logits = torch.randn(12, 3, generator=generator(), dtype=torch.float64).requires_grad_()
    value = learner.learned_loss(phi, logits, torch.arange(12) % 3, 0.0)[0]
    return torch.autograd.grad(value, logits)[0].flatten()


def same_images(seed: int) -> Episode:
    """A task of random images whose queries are the support images with a little noise."""
    task = float64_episode(seed)
    noise = torch.randn(task.support.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return replace(task, queries=task.support + 0.02 * noise)
