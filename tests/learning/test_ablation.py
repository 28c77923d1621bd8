"""Ablation: variants are compared on the same episodes, and each changes only the parameters it names.

So are numbers of steps.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lamanas_core.adapt.adapted import Adapted, adapt_to
from lamanas_core.adapt.inner import steps
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.data.episodes import Episode
from lamanas_core.data.folders import load_dataset
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.image_spec import ImageSpec
from lamanas_core.measure import ablate as ablation
from lamanas_core.measure.ablate import (
    CROSS_ENTROPY_RATES,
    ablate,
    compare_steps,
    compared,
    pairs_that_differ,
    redrawn,
    steps_compared,
    variants,
)
from lamanas_core.measure.evaluate import EvaluationConfig, sampled
from lamanas_core.meta_model import MetaModel
from tests.learning.brief_training import SMALLEST

CONFIG = replace(SMALLEST, network=replace(SMALLEST.network, image=ImageSpec()))


def model() -> MetaModel:
    return MetaModel(initial_parameters(CONFIG, 0), {"config": CONFIG.to_json()})


def test_each_variant_changes_only_the_parameters_it_names() -> None:
    images, labels = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    moved = {}
    for name, variant in variants(model()).items():
        of = variant.model
        count = of.config.task_learner.steps if variant.steps is None else variant.steps
        theta, alpha = of.parameters.theta, of.parameters.alpha
        for step in steps(of.learner, of.parameters, images, labels, 3, count):
            theta, alpha = step.theta, step.alpha
        moved[name] = tuple(
            any(not torch.equal(old[n], new[n]) for n in old)
            for old, new in ((of.parameters.theta, theta), (of.parameters.alpha, alpha))
        )
    assert moved.pop("none") == (False, False)
    assert moved.pop("theta_only") == (True, False)
    assert moved.pop("alpha_only") == (False, True)
    assert set(moved.values()) == {(True, True)}


def test_cross_entropy_is_tried_down_to_negligible_step_sizes() -> None:
    found = variants(model())
    base = model().parameters.theta_log_rates.exp()
    for name, factor in CROSS_ENTROPY_RATES.items():
        torch.testing.assert_close(found[name].model.parameters.theta_log_rates.exp(), factor * base)
        assert found[name].model.config.task_learner.loss == "cross_entropy"
    assert min(CROSS_ENTROPY_RATES.values()) <= 1 / 30


def test_differences_are_paired_and_the_best_by_accuracy_is_not_the_best_by_entropy() -> None:
    zeros: dict[str, list[float]] = {name: [0.0, 0.0] for name in CROSS_ENTROPY_RATES}
    accuracies = zeros | {"none": [0.2, 0.8], "learned": [0.3, 1.0], "cross_entropy_1/3": [0.5, 0.9]}
    entropies = {name: [9.0, 9.0] for name in accuracies} | {
        "learned": [1.0, 2.0],
        "cross_entropy_1/3": [4.0, 6.0],
        "cross_entropy_1/30": [3.0, 3.0],
    }
    result = compared(accuracies, entropies)
    assert result["best_cross_entropy"] == {
        "by_accuracy": "cross_entropy_1/3",
        "by_query_cross_entropy": "cross_entropy_1/30",
    }
    row = result["variants"]["learned"]
    # The paired differences are 0.1 and 0.2; the unpaired accuracies have a range of 0.7.
    assert row["over_none"] == pytest.approx([0.15, 1.96 * 0.05], abs=1e-5)
    assert row["over_best_cross_entropy"] == pytest.approx([-0.05, 1.96 * 0.15], abs=1e-5)
    assert row["query_cross_entropy"] == pytest.approx([1.5, 1.96 * 0.5], abs=1e-5)
    assert result["variants"]["cross_entropy_1/3"]["query_cross_entropy"][0] == 5.0


def test_pairs_that_differ_by_hand() -> None:
    # One of the six pairs of a, a, b, c is equal.
    assert pairs_that_differ(["a", "a", "b", "c"]) == pytest.approx(5 / 6)
    assert pairs_that_differ(["a", "a"]) == 0
    assert pairs_that_differ(["a"]) is None


def test_all_variants_are_evaluated_on_every_episode(tmp_path: Path) -> None:
    write_folders(tmp_path, classes=8, images=3, seed=0)
    classes = load_dataset(tmp_path, ImageSpec())["train"]
    done: list[int] = []
    result = ablate(model(), classes, EvaluationConfig(ways=3, shots=1, queries=2, episodes=2), done.append)
    assert done == [1, 2]
    assert result["variants"].keys() == variants(model()).keys()
    best = result["best_cross_entropy"]["by_accuracy"]
    assert result["variants"][best]["over_best_cross_entropy"] == [0.0, 0.0]


@pytest.mark.parametrize(("alpha_rate", "expected"), [(0.0, 0.0), (1e3, 1.0)])
def test_the_genotype_counts_as_moved_if_the_steps_change_its_operations(
    tmp_path: Path, alpha_rate: float, expected: float
) -> None:
    write_folders(tmp_path, classes=8, images=3, seed=0)
    classes = load_dataset(tmp_path, ImageSpec())["train"]
    parameters = initial_parameters(CONFIG, 0)
    rates = torch.full_like(parameters.alpha_log_rates, alpha_rate).log()
    moving = MetaModel(replace(parameters, alpha_log_rates=rates), {"config": CONFIG.to_json()})
    config = EvaluationConfig(ways=3, shots=1, queries=2, episodes=2)
    result = ablate(moving, classes, config, lambda number: None)
    assert (result["genotype_moved"], result["genotype_pairs_differ"]) == (expected, expected)


def test_numbers_of_steps_are_compared_with_the_first_in_pairs() -> None:
    accuracies = {3: [0.2, 0.8], 8: [0.3, 1.0]}
    found = steps_compared(accuracies, {3: [1.0, 2.0], 8: [0.5, 0.5]})
    assert list(found) == ["3", "8"]
    assert found["3"] == {
        "accuracy": pytest.approx([0.5, 1.96 * 0.3], abs=1e-5),
        "query_cross_entropy": pytest.approx([1.5, 1.96 * 0.5], abs=1e-5),
        "over_first": [0.0, 0.0],
    }
    assert found["8"]["over_first"] == pytest.approx([0.15, 1.96 * 0.05], abs=1e-5)
    assert found["8"]["query_cross_entropy"] == [0.5, 0.0]


@pytest.mark.parametrize("restyle", [False, True])
def test_each_number_of_steps_is_evaluated_on_the_same_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restyle: bool
) -> None:
    write_folders(tmp_path, classes=8, images=3, seed=0)
    classes = load_dataset(tmp_path, ImageSpec())["train"]
    config, done = EvaluationConfig(ways=3, shots=1, queries=2, episodes=2), list[int]()
    adapted_to: list[tuple[int, int, torch.Tensor]] = []

    def recording(model: MetaModel, episode: Episode, *, steps: int, seed: int, device: str) -> Adapted:
        adapted_to.append((steps, seed, episode.support))
        return adapt_to(model, episode, steps=steps, seed=seed, device=device)

    monkeypatch.setattr(ablation, "adapt_to", recording)
    result = compare_steps(model(), classes, config, done.append, counts=(2, 0), restyle=restyle)
    assert done == [1, 2]
    assert list(result["steps_compared"]) == ["2", "0"]
    assert [(steps, seed) for steps, seed, _ in adapted_to] == [(2, 0), (0, 0), (2, 1), (0, 1)]
    for (_, number, first), (_, _, second) in zip(adapted_to[::2], adapted_to[1::2], strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, list(sampled(classes, config))[number].support) != restyle


def test_an_episode_is_redrawn_in_one_style_and_otherwise_unchanged(tmp_path: Path) -> None:
    write_folders(tmp_path, classes=8, images=3, seed=0)
    config = EvaluationConfig(ways=3, shots=1, queries=2, episodes=10)
    # With the support images among the queries, too, so that the styles of both can be compared.
    episodes = [
        replace(one, queries=torch.cat([one.support, one.queries]))
        for one in sampled(load_dataset(tmp_path, ImageSpec())["train"], config)
    ]
    found, again = (list(redrawn(episodes, ImageSpec(), 0)) for _ in range(2))
    changed, common = 0, 0
    for before, after, same in zip(episodes, found, again, strict=True):
        assert after.support.dtype == torch.uint8
        assert torch.equal(after.queries, same.queries)
        assert (after.support_labels, after.query_labels) == (before.support_labels, before.query_labels)
        assert (after.ways, after.classes) == (before.ways, before.classes)
        changed += not torch.equal(after.support, before.support)
        common += torch.equal(after.support, after.queries[: len(after.support)])
    assert changed >= 7
    assert 6 <= common < 10  # the grain in 2 of 10 styles differs from image to image
    assert not torch.equal(found[0].support, next(redrawn(episodes, ImageSpec(), 1)).support)
