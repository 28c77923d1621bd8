"""The warm-up trains the operations that are kept, and reduces the size of the architecture."""

from dataclasses import replace

import pytest
import torch

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters
from lamanas_core.data.episodes import Episode
from lamanas_core.meta.warm_up import size, temperature, warm_up_gradient
from lamanas_core.recipe import WarmUp
from lamanas_core.search.alpha import cell_weights
from lamanas_core.search.mixing import Mixing
from lamanas_core.search.supernet import CellNetwork
from tests.learning.helpers import MINIATURE, float64_episode, float64_learner, operations_in, with_shares

NETWORK, RECIPE = MINIATURE.network, WarmUp()


def test_an_operation_is_trained_until_its_share_falls_below_the_threshold() -> None:
    assert RECIPE.threshold < 0.03 < NETWORK.train_threshold
    learner, parameters = float64_learner()
    parameters = with_shares(parameters, [0.4825, 0.4825, 0.03, 0.005])
    gradients = warm_up_gradient(learner, parameters, float64_episode(), 0.0, RECIPE).gradients
    assert operations_in({name: gradients[f"theta.{name}"] for name in parameters.theta}) == {0, 1, 2}


def blank() -> Episode:
    """A task of equal images, whose loss has no gradient: only the penalty on size remains."""
    task = float64_episode()
    return replace(task, support=torch.zeros_like(task.support), queries=torch.zeros_like(task.queries))


def size_of(parameters: Parameters, done: float) -> float:
    weights = cell_weights(parameters.alpha, NETWORK, Mixing(temperature(done, RECIPE), RECIPE.threshold))
    return float(size(CellNetwork(NETWORK), weights, RECIPE))


def after_a_step(learner: TaskLearner, parameters: Parameters, done: float) -> Parameters:
    """``parameters`` after a small gradient step on α with blank images."""
    gradients = warm_up_gradient(learner, parameters, blank(), done, RECIPE).gradients
    alpha = {name: value - 0.01 * gradients[f"alpha.{name}"] for name, value in parameters.alpha.items()}
    return replace(parameters, alpha=alpha)


@pytest.mark.parametrize("share", [0.5, 1.0, 2.0])
def test_an_architecture_above_the_target_size_is_made_smaller(share: float) -> None:
    done = share * RECIPE.annealed_by
    learner, parameters = float64_learner()
    parameters = with_shares(parameters, [0.4, 0.3, 0.2, 0.1], temperature(done, RECIPE))
    assert size_of(after_a_step(learner, parameters, done), done) < size_of(parameters, done) - 1e-5


def test_size_is_not_penalised_at_the_beginning_or_below_the_target() -> None:
    learner, parameters = float64_learner()
    assert_alpha_unchanged(parameters, after_a_step(learner, parameters, 0.0))
    small = with_shares(parameters, [0.0, 1.0, 0.0, 0.0])
    assert_alpha_unchanged(small, after_a_step(learner, small, RECIPE.annealed_by))


def assert_alpha_unchanged(before: Parameters, after: Parameters) -> None:
    for name, value in before.alpha.items():
        torch.testing.assert_close(after.alpha[name], value, rtol=0, atol=1e-12)


def test_the_gradient_of_the_scale_equals_its_finite_difference() -> None:
    learner, parameters = float64_learner()
    task = float64_episode()

    def loss(change: float) -> float:
        moved = replace(parameters, log_scale=parameters.log_scale + change)
        return warm_up_gradient(learner, moved, task, 0.0, RECIPE).loss

    gradient = float(warm_up_gradient(learner, parameters, task, 0.0, RECIPE).gradients["scale"])
    assert abs(gradient) > 1e-3
    assert gradient == pytest.approx((loss(1e-5) - loss(-1e-5)) / 2e-5, rel=1e-6)
