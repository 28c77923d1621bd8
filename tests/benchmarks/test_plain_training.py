"""The plain implementations of Algorithms 1 and 2 compute the meta-learners' gradients."""

from dataclasses import replace

import pytest
import torch

from benchmarks.plain_training import PlainTrainer
from lamanas_core.config import PAPER, LossKind, PhiSteps, Proxy, ResidualAt
from lamanas_core.image_spec import ImageSpec
from lamanas_core.meta.maml import maml
from lamanas_core.meta.reptile import reptile
from tests.learning.helpers import float64_episode, float64_learner

NETWORK = replace(
    PAPER.network,
    image=ImageSpec(size=8),
    channels=2,
    nodes=2,
    cells=("normal", "reduction"),
    ways=3,
    prune_threshold=0.0,
    drop_path=0.0,
)
# Every step uses the whole support set, so that neither side samples batches.
TASK_LEARNER = replace(PAPER.task_learner, batch=None, steps=2, hidden=3)
BATCHES = [torch.arange(6)] * 3


@pytest.mark.parametrize("loss", ["fnn", "lstm"])
@pytest.mark.parametrize("proxy", ["mse", "inner_product"])
@pytest.mark.parametrize(("residual_at", "phi_steps"), [("first_layer", "once"), ("output", "each_step")])
def test_algorithm_2_updates_phi_theta_and_alpha_as_the_meta_learner_does(
    residual_at: ResidualAt, phi_steps: PhiSteps, proxy: Proxy, loss: LossKind
) -> None:
    task_learner = replace(TASK_LEARNER, loss=loss, residual_at=residual_at, steps=3)
    config = replace(PAPER, network=NETWORK, task_learner=task_learner)
    learner, parameters = float64_learner(config)
    task = float64_episode(ways=3, shots=2)
    asked = reptile(learner, parameters, task, 3, torch.Generator(), proxy, phi_steps, 0.1).gradients

    plain = PlainTrainer(config, parameters)
    plain.algorithm_2(task, BATCHES, 0.1, proxy, phi_steps)

    parts = ("theta", plain.network.named_parameters()), ("alpha", plain.alpha.items())
    for part, found in (*parts, ("phi", plain.moving_loss.named_parameters())):
        for name, value in found:
            moved = getattr(parameters, part)[name] - value.detach()
            torch.testing.assert_close(moved, asked[f"{part}.{name}"], rtol=1e-6, atol=1e-6, msg=f"{part}.{name}")


def test_algorithm_1_finds_the_meta_gradient_where_queries_leave_the_statistics_as_they_are() -> None:
    rates = replace(TASK_LEARNER, optimizer="sgd", theta_rate=0.1, alpha_rate=0.1)
    config = replace(PAPER, network=NETWORK, task_learner=rates)
    learner, parameters = float64_learner(config)
    task = float64_episode(ways=3, shots=2)
    task = replace(task, queries=task.support)
    asked = maml(learner, parameters, task, 3, torch.Generator()).gradients

    found = PlainTrainer(config, parameters).algorithm_1(task, BATCHES)

    names = [f"theta.{name}" for name in parameters.theta] + [f"alpha.{name}" for name in parameters.alpha]
    names += [f"phi.{name}" for name in parameters.phi]
    for name, gradient in zip(names, found, strict=True):
        torch.testing.assert_close(gradient, asked[name], rtol=1e-6, atol=1e-8)
