"""Several episodes adapted in one pass equal each adapted alone, and masked operations equal skipped ones."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lamanas_core.adapt import adapted, together
from lamanas_core.adapt.adapted import LARGEST_BATCH, Adapted, adapt, finish
from lamanas_core.adapt.held_out import Embed, half_of_each
from lamanas_core.adapt.inner import TaskLearner, steps
from lamanas_core.adapt.parameters import Parameters, initial_parameters
from lamanas_core.adapt.together import TOLERANCE, SupportSet, adapt_together, can_adapt_together, steps_together
from lamanas_core.artifact import Classifier
from lamanas_core.config import Config
from lamanas_core.data.episodes import to_float
from lamanas_core.image_spec import UNLABELLED
from lamanas_core.meta_model import MetaModel, shipped
from lamanas_core.search.alpha import KINDS, edges
from lamanas_core.search.mixing import Mixing
from lamanas_core.search.normalisation import Batch
from tests.learning.helpers import MINIATURE, float64_episode, float64_learner, glyph_support, with_shares
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
    stepped = steps_together(learner, parameters, support, labels, WAYS, 3)
    assert stepped.losses.shape == (3, EPISODES)
    found = [stepped.parameters(parameters, number) for number in range(EPISODES)]
    for number, got in enumerate(found):
        expected = alone(learner, parameters, support[number], labels[number], 3)
        for name, value in expected.named().items():
            torch.testing.assert_close(got.named()[name], value, rtol=1e-9, atol=1e-9, msg=name)
        own = list(steps(learner, parameters, support[number], labels[number], WAYS, 3))
        torch.testing.assert_close(stepped.losses[:, number], torch.stack([step.loss for step in own]))
        assert stepped.first is not None
        torch.testing.assert_close(stepped.first[number], own[0].logits)
    assert any(not torch.equal(value, found[1].theta[name]) for name, value in found[0].theta.items())


def test_the_shipped_model_adapts_episodes_together_as_alone_in_float32() -> None:
    model = MetaModel.from_bytes(*shipped())
    sets = [glyph_support(WAYS, [2] * WAYS, seed) for seed in range(EPISODES)]
    support = torch.stack([to_float(torch.from_numpy(images)) for images, _ in sets])
    labels = torch.stack([torch.from_numpy(targets) for _, targets in sets])
    stepped = steps_together(model.learner, model.parameters, support, labels, WAYS, 1)
    for number in range(EPISODES):
        got = stepped.parameters(model.parameters, number)
        expected = alone(model.learner, model.parameters, support[number], labels[number], 1)
        (step,) = steps(model.learner, model.parameters, support[number], labels[number], WAYS, 1)
        torch.testing.assert_close(stepped.losses[0, number], step.loss, rtol=0, atol=1e-5)
        assert model.learner.network.genotype(got.alpha) is not None
        logits = [
            finish(model.learner, one, support[number], labels[number], WAYS).logits(support[number])
            for one in (got, expected)
        ]
        torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-5 * float(logits[1].abs().max()))


def test_without_steps_every_episode_has_the_parameters_of_the_meta_model() -> None:
    learner, parameters = float64_learner()
    stepped = steps_together(learner, parameters, *support_sets(2), WAYS, 0)
    assert (stepped.losses.shape, stepped.first) == ((0, 2), None)
    for number in range(2):
        theta = stepped.parameters(parameters, number).theta
        assert all(torch.equal(value, theta[name]) for name, value in parameters.theta.items())


def glyph_episode(seed: int, shots: list[int]) -> SupportSet:
    """An episode of drawings, of which the one in row ``seed`` has the label of the last class."""
    images, labels = glyph_support(len(shots), shots, seed)
    labels[seed] = len(shots) - 1
    return SupportSet(images, labels, [f"class {label}" for label in range(len(shots))], seed)


def adapted_alone(model: MetaModel, one: SupportSet) -> Adapted:
    return adapt(
        model,
        one.support,
        one.labels,
        one.classes,
        steps=None,
        seed=one.seed,
        device="cpu",
        on_step=lambda *_: None,
    )


def test_results_together_equal_those_of_each_alone_within_the_tolerance() -> None:
    model = MetaModel.from_bytes(*shipped())
    episodes = [glyph_episode(seed, [4, 3, 2]) for seed in range(3)]
    told: list[tuple[int, int, list[float]]] = []

    def on_step(step: int, steps: int, losses: list[float]) -> None:
        told.append((step, steps, losses))

    found = list(adapt_together(model, episodes, steps=None, device="cpu", on_step=on_step))
    assert [(step, steps) for step, steps, _ in told] == [(1, 3), (2, 3), (3, 3)]
    queries = glyph_support(3, [2] * 3, seed=9)[0]
    for number, (one, got) in enumerate(zip(episodes, found, strict=True)):
        expected = adapted_alone(model, one)
        logits = expected.network.logits(torch.from_numpy(queries))
        most = TOLERANCE * float(logits.abs().max())
        torch.testing.assert_close(got.network.logits(torch.from_numpy(queries)), logits, rtol=0, atol=most)
        by_artifact = Classifier.from_bytes(got.artifact).logits(queries)
        np.testing.assert_allclose(by_artifact, logits, rtol=0, atol=most)
        assert got.losses == pytest.approx(expected.losses, abs=1e-3)
        assert [losses[number] for _, _, losses in told] == pytest.approx(got.losses)
        assert (got.leave_one_out_accuracy, got.support_accuracy) == (
            expected.leave_one_out_accuracy,
            expected.support_accuracy,
        )
        assert [replace(suspect, times=0.0) for suspect in got.suspects] == [
            replace(suspect, times=0.0) for suspect in expected.suspects
        ]
        assert [each.times for each in got.suspects] == pytest.approx([each.times for each in expected.suspects], 1e-3)
        assert (got.parameters_kept, got.warnings) == (expected.parameters_kept, expected.warnings)
    assert any(result.suspects for result in found)


def test_the_accuracy_is_estimated_from_the_features_that_each_gives_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a class of three images, those of one or of two are learned from, so that the batches differ in size."""
    model = MetaModel.from_bytes(*shipped())
    episodes = [glyph_episode(seed, [4, 3, 3]) for seed in range(3)]
    seen: list[Tensor] = []

    def noting(embed: Embed, labels: Tensor, ways: int, generator: torch.Generator) -> float | None:
        half = half_of_each(labels, ways, generator)
        seen.append(embed(half))
        return float(len(half))

    monkeypatch.setattr(together, "held_out_accuracy", noting)
    monkeypatch.setattr(adapted, "held_out_accuracy", noting)
    found = list(adapt_together(model, episodes, steps=None, device="cpu", on_step=lambda *_: None))
    expected = [adapted_alone(model, one) for one in episodes]
    sizes = [result.leave_one_out_accuracy for result in found]
    assert sizes == [result.leave_one_out_accuracy for result in expected]
    assert len(set(sizes)) > 1
    for got, alone in zip(seen[:3], seen[3:], strict=True):
        torch.testing.assert_close(got, alone, rtol=0, atol=TOLERANCE * float(alone.abs().max()))


def test_only_episodes_of_equal_shape_are_adapted_together() -> None:
    model = MetaModel.from_bytes(*shipped())
    unlike = [glyph_episode(0, [2, 2, 2]), glyph_episode(1, [2, 2])]
    with pytest.raises(ValueError, match="equal numbers of images"):
        list(adapt_together(model, unlike, steps=None, device="cpu", on_step=lambda *_: None))


def test_an_episode_that_has_images_without_a_label_is_not_adapted_with_others() -> None:
    model = MetaModel.from_bytes(*shipped())
    one = glyph_episode(0, [2, 2])
    one.labels[0] = UNLABELLED
    with pytest.raises(ValueError, match="only be adapted alone"):
        list(adapt_together(model, [one, one], steps=None, device="cpu", on_step=lambda *_: None))


def test_a_backbone_or_minibatches_keep_episodes_apart() -> None:
    config = MetaModel.from_bytes(*shipped()).config
    assert can_adapt_together(config, LARGEST_BATCH)
    assert not can_adapt_together(config, LARGEST_BATCH + 1)
    assert not can_adapt_together(replace(config, task_learner=replace(config.task_learner, batch=20)), 10)
    assert not can_adapt_together(replace(config, network=replace(config.network, backbone="any")), 10)


def test_an_operation_that_no_episode_keeps_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, parameters = float64_learner()
    parameters = with_shares(parameters, [0.97, *[0.01] * (len(MINIATURE.network.operations) - 1)])
    computed: set[int] = set()
    embed = TaskLearner.embed

    def noting(*given: Any, **named: Any) -> Any:
        computed.update(o for kept in named["mixing"].computed["normal"] for o in kept)
        return embed(*given, **named)

    monkeypatch.setattr(TaskLearner, "embed", noting)
    steps_together(learner, parameters, *support_sets(2), WAYS, 1)
    assert computed == {0}


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
        everything = (tuple(range(len(MINIATURE.network.operations))),) * len(edges(MINIATURE.network.nodes))
        mixing = Mixing(1.0, threshold, computed=dict.fromkeys(KINDS, everything) if masked else None)
        features, _ = learner.embed(theta, alpha, images, batch=Batch(), mixing=mixing)
        gradients = torch.autograd.grad(
            features.square().sum(), [*theta.values(), *alpha.values()], materialize_grads=True
        )
        results.append((features, gradients))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    for skipped, masked_out in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(skipped, masked_out, rtol=1e-5, atol=1e-5)
