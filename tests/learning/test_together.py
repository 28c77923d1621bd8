"""Several episodes adapted in one pass equal each adapted alone, and masked operations equal skipped ones."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lamanas_core.adapt.adapted import finish
from lamanas_core.adapt.inner import TaskLearner, steps
from lamanas_core.adapt.parameters import Parameters, initial_parameters
from lamanas_core.adapt.together import steps_together
from lamanas_core.config import Config
from lamanas_core.data.episodes import to_float
from lamanas_core.meta_model import MetaModel, shipped
from lamanas_core.search.mixing import Mixing
from lamanas_core.search.normalisation import Batch
from tests.learning.helpers import MINIATURE, float64_episode, float64_learner, glyph_support
from tests.learning.test_paper import SMALL, with_loss

EPISODES, WAYS = 3, 3


def alone(learner: TaskLearner, parameters: Parameters, support: Tensor, labels: Tensor, count: int) -> Parameters:
    """The parameters after ``count`` inner steps on one episode."""
    theta, alpha = parameters.theta, parameters.alpha
    for step in steps(learner, parameters, support, labels, WAYS, count):
        theta, alpha = step.theta, step.alpha
    return replace(parameters, theta=theta, alpha=alpha)


def support_sets(episodes: int) -> tuple[Tensor, Tensor]:
    found = [float64_episode(seed, WAYS) for seed in range(episodes)]
    return torch.stack([one.support for one in found]), torch.stack([one.support_labels for one in found])


@pytest.mark.parametrize(
    "config",
    [
        MINIATURE,
        replace(MINIATURE, task_learner=replace(MINIATURE.task_learner, loss="fnn")),
        replace(MINIATURE, task_learner=replace(MINIATURE.task_learner, loss="cross_entropy")),
        with_loss(SMALL, "lstm"),  # the paper's: a linear head, Adam, and a falling temperature
    ],
    ids=["lstm", "fnn", "cross_entropy", "paper"],
)
def test_episodes_adapted_together_equal_each_adapted_alone(config: Config) -> None:
    learner, parameters = float64_learner(config)
    support, labels = support_sets(EPISODES)
    found, losses = steps_together(learner, parameters, support, labels, WAYS, 3)
    assert losses.shape == (3, EPISODES)
    for number, got in enumerate(found):
        expected = alone(learner, parameters, support[number], labels[number], 3)
        for name, value in expected.named().items():
            torch.testing.assert_close(got.named()[name], value, rtol=1e-9, atol=1e-9, msg=name)
        own = [step.loss for step in steps(learner, parameters, support[number], labels[number], WAYS, 3)]
        torch.testing.assert_close(losses[:, number], torch.stack(own))
    assert any(not torch.equal(value, found[1].theta[name]) for name, value in found[0].theta.items())


def test_the_shipped_model_adapts_episodes_together_as_alone_in_float32() -> None:
    model = MetaModel.from_bytes(*shipped())
    sets = [glyph_support(WAYS, [2] * WAYS, seed) for seed in range(EPISODES)]
    support = torch.stack([to_float(torch.from_numpy(images)) for images, _ in sets])
    labels = torch.stack([torch.from_numpy(targets) for _, targets in sets])
    found, losses = steps_together(model.learner, model.parameters, support, labels, WAYS, 1)
    for number, got in enumerate(found):
        expected = alone(model.learner, model.parameters, support[number], labels[number], 1)
        (step,) = steps(model.learner, model.parameters, support[number], labels[number], WAYS, 1)
        torch.testing.assert_close(losses[0, number], step.loss, rtol=0, atol=1e-5)
        assert model.learner.network.genotype(got.alpha) is not None
        logits = [
            finish(model.learner, one, support[number], labels[number], WAYS).logits(support[number])
            for one in (got, expected)
        ]
        torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-5 * float(logits[1].abs().max()))


def test_without_steps_every_episode_has_the_parameters_of_the_meta_model() -> None:
    learner, parameters = float64_learner()
    found, losses = steps_together(learner, parameters, *support_sets(2), WAYS, 0)
    assert losses.shape == (0, 2)
    for got in found:
        assert all(torch.equal(value, got.theta[name]) for name, value in parameters.theta.items())


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.3])
def test_masked_operations_give_the_same_features_moments_and_gradients_as_skipped_ones(threshold: float) -> None:
    learner = TaskLearner.build(MINIATURE)
    parameters = initial_parameters(MINIATURE, 0)
    source = torch.Generator().manual_seed(0)
    parameters = parameters.map(lambda value: value.detach().clone())
    for value in parameters.alpha.values():
        value += torch.randn(value.shape, generator=source)
    images = torch.rand(6, 1, 8, 8, generator=source)
    results = []
    for masked in (False, True):
        theta = {name: value.clone().requires_grad_() for name, value in parameters.theta.items()}
        alpha = {name: value.clone().requires_grad_() for name, value in parameters.alpha.items()}
        mixing = Mixing(1.0, threshold, masked=masked)
        features, _ = learner.embed(theta, alpha, images, batch=Batch(), mixing=mixing)
        gradients = torch.autograd.grad(
            features.square().sum(), [*theta.values(), *alpha.values()], materialize_grads=True
        )
        results.append((features, gradients))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    for skipped, masked_out in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(skipped, masked_out, rtol=1e-5, atol=1e-5)
