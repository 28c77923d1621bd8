"""The plain reference computes the same numbers as the task learner in every step."""

from dataclasses import replace

import torch

from benchmarks.plain_reference import PlainLearner
from lamanas_core.adapt.inner import steps
from lamanas_core.config import PAPER, Config
from lamanas_core.image_spec import ImageSpec
from tests.learning.helpers import float64_episode, float64_learner

SMALL = replace(PAPER, network=replace(PAPER.network, image=ImageSpec(size=8), channels=2, ways=3))


def without_pruning(config: Config) -> Config:
    return replace(config, network=replace(config.network, prune_threshold=0.0))


def test_the_reference_takes_the_steps_of_the_task_learner() -> None:
    # The last cell's inputs differ in size, as in the whole network.
    config = without_pruning(replace(SMALL, network=replace(SMALL.network, cells=("normal", "reduction", "normal"))))
    learner, parameters = float64_learner(config)
    task = float64_episode(ways=3, shots=2)
    batches = [torch.arange(6), torch.tensor([0, 2, 3, 5]), torch.arange(6)]

    taken = list(steps(learner, parameters, task.support, task.support_labels, 3, len(batches), batches=batches))
    plain = PlainLearner(config, parameters)
    losses = plain.adapt(task.support, task.support_labels, batches)

    torch.testing.assert_close(torch.tensor(losses), torch.stack([step.loss for step in taken]).float())
    for name, value in plain.alpha.items():
        torch.testing.assert_close(value.detach(), taken[-1].alpha[name].detach(), rtol=1e-6, atol=1e-6)
    for name, parameter in plain.network.named_parameters():
        torch.testing.assert_close(parameter.detach(), taken[-1].theta[name].detach(), rtol=1e-6, atol=1e-6)


def test_the_reference_does_not_change_the_given_parameters() -> None:
    _, parameters = float64_learner(SMALL)
    before = {name: value.clone() for name, value in parameters.named().items()}
    task = float64_episode(ways=3, shots=2)
    PlainLearner(SMALL, parameters).adapt(task.support, task.support_labels, [torch.arange(6)])
    assert all(torch.equal(value, before[name]) for name, value in parameters.named().items())
