"""The comparison of the photo model with variants of its adaptation and with logistic regression."""

from typing import Any

import numpy as np
import pytest
import torch

import benchmarks.photos
from benchmarks.photos import STRENGTHS, VARIANTS, compare
from lamanas_core.adapt.adapted import Adapted, adapt_to
from lamanas_core.data.episodes import Episode
from lamanas_core.data.folders import ImageClasses
from lamanas_core.measure.evaluate import EvaluationConfig
from lamanas_core.meta_model import MetaModel, shipped
from tests.e2e.photos import photo


def test_photos_are_compared_in_pairs_with_no_steps_as_many_of_cross_entropy_and_logistic_regression(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [torch.from_numpy(np.array(photo(seed, 224, 224))).permute(2, 0, 1) for seed in range(6)]
    members = tuple(torch.arange(2 * number, 2 * number + 2) for number in range(3))
    classes = ImageClasses(torch.stack(images), members, ("a", "b", "c"), ("", "", ""))
    ran: list[tuple[str, int, bytes]] = []

    def noted(model: MetaModel, episode: Episode, **options: Any) -> Adapted:
        task, steps = model.config.task_learner, options["steps"]
        ran.append((task.loss, task.steps if steps is None else steps, episode.support.numpy().tobytes()))
        return adapt_to(model, episode, **options)

    monkeypatch.setattr(benchmarks.photos, "adapt_to", noted)
    config = EvaluationConfig(ways=2, shots=1, queries=1, episodes=1)
    found = compare(MetaModel.from_bytes(*shipped("photos")), classes, config)
    assert [(loss, steps) for loss, steps, _ in ran] == [("lstm", 3), ("lstm", 0), ("cross_entropy", 3)]
    assert len({support for _, _, support in ran}) == 1
    regressions = {f"logistic_regression_{strength:g}" for strength in STRENGTHS}
    assert found["accuracy"].keys() == {*VARIANTS, *regressions, *(f"{name}_with_crops" for name in regressions)}


def test_logistic_regression_is_fitted_to_the_images_and_besides_to_their_crops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted: list[tuple[np.ndarray, float, list[int]]] = []

    class Regression:
        def __init__(self, C: float, max_iter: int) -> None:  # noqa: N803 - as in scikit-learn
            self.strength = C

        def fit(self, features: np.ndarray, labels: np.ndarray) -> "Regression":
            fitted.append((features, self.strength, labels.tolist()))
            return self

        def predict(self, features: np.ndarray) -> np.ndarray:
            return np.zeros(len(features), np.int64)

    monkeypatch.setattr(benchmarks.photos, "LogisticRegression", Regression)
    # Of one colour each, so that a crop has the features of its image.
    images = torch.arange(0, 240, 40, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 224, 224)
    images[:, 1] = 255 - images[:, 1]
    members = tuple(torch.arange(2 * number, 2 * number + 2) for number in range(3))
    classes = ImageClasses(images, members, ("a", "b", "c"), ("", "", ""))
    config = EvaluationConfig(ways=2, shots=1, queries=1, episodes=1)
    compare(MetaModel.from_bytes(*shipped("photos")), classes, config)
    alone, crops = fitted[0][0], fitted[2][0]
    assert [(strength, labels) for _, strength, labels in fitted] == [
        (1.0, [0, 1]),
        (10.0, [0, 1]),
        (0.25, [0] * 4 + [1] * 4),
        (2.5, [0] * 4 + [1] * 4),
    ]
    np.testing.assert_allclose(crops, alone.repeat(4, axis=0), atol=0.01)
    assert np.abs(alone[0] - alone[1]).max() > 0.05


def test_differences_are_from_the_best_and_of_the_same_episodes() -> None:
    accuracies = {"adapted": [60.0, 90.0], "one": [50.0, 60.0], "other": [55.0, 80.0]}
    # From the better one they are 5 and 10; the accuracies themselves differ by 30.
    assert benchmarks.photos.over(accuracies, ["one", "other"]) == [7.5, pytest.approx(1.96 * 2.5, abs=0.01)]
