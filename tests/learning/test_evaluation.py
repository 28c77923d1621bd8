"""Evaluation results against numbers calculated by hand, with a classifier whose answers are fixed."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.artifact import Answers, Classifier
from lamanas_core.data.folders import ImageClasses
from lamanas_core.measure import evaluate as evaluation
from lamanas_core.measure.evaluate import EvaluationConfig, evaluate, measured_on
from lamanas_core.measure.metrics import mean_and_interval
from lamanas_core.meta_model import MetaModel
from tests.learning.brief_training import SMALLEST

Array = npt.NDArray[np.floating]
CONFIG = EvaluationConfig(ways=2, shots=1, queries=2, episodes=2)
# The predicted classes of the queries, two per class in order: all correct in episode 0, one of four in episode 1.
PREDICTED = ([0, 0, 1, 1], [0, 1, 0, 0])
CONFIDENCE = 0.8
KEPT = (100, 300)


@dataclass(frozen=True)
class FixedClassifier:
    """Predicts ``PREDICTED`` with the probability ``CONFIDENCE``. The novelty of an image is its mean pixel value, and
    it is known if that is below 5.
    """

    number: int

    def answers(self, images: Array) -> Answers:
        predicted = np.eye(2)[PREDICTED[self.number]]
        novelty = images.mean((1, 2, 3))
        return Answers(np.where(predicted == 1, CONFIDENCE, 1 - CONFIDENCE), novelty, novelty < 5)

    def logits(self, images: Array) -> Array:
        logits: Array = np.log(self.answers(images).probabilities)
        return logits


@pytest.fixture
def adaptations(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The options of each adaptation; adaptations are only recorded, and give a ``FixedClassifier``."""
    recorded: list[dict[str, object]] = []

    def adapt_to(model: MetaModel, episode: object, **options: object) -> SimpleNamespace:
        recorded.append(options)
        number = len(recorded) - 1
        return SimpleNamespace(artifact=bytes([number]), parameters_kept=KEPT[number], parameters_total=1000)

    monkeypatch.setattr(evaluation, "adapt_to", adapt_to)
    monkeypatch.setattr(Classifier, "from_bytes", lambda artifact: FixedClassifier(artifact[0]))
    return recorded


def model() -> MetaModel:
    return MetaModel(initial_parameters(SMALLEST, 0), {"config": SMALLEST.to_json()})


def classes(count: int) -> ImageClasses:
    """``count`` classes of three 8 x 8 images, all pixels 0."""
    members = tuple(torch.arange(3 * i, 3 * i + 3) for i in range(count))
    names = tuple(str(i) for i in range(count))
    return ImageClasses(torch.zeros(3 * count, 1, 8, 8, dtype=torch.uint8), members, names, names)


def test_accuracy_interval_parameters_and_calibration_by_hand(adaptations: list[dict[str, object]]) -> None:
    done: list[int] = []
    result = evaluate(model(), classes(2), replace(CONFIG, steps=7, seed=5), done.append)
    assert result.accuracies == (1.0, 0.25)
    assert result.accuracy == pytest.approx(0.625)
    # Both deviate by 0.375: the standard deviation is 0.375 √2, the standard error that over √2.
    assert result.ci95 == pytest.approx(1.96 * 0.375)
    assert result.parameters_kept == 200
    assert result.parameters_total == 1000
    assert result.ece == pytest.approx(CONFIDENCE - 5 / 8)
    assert done == [1, 2]
    assert adaptations == [{"steps": 7, "seed": 0, "device": "cpu"}, {"steps": 7, "seed": 1, "device": "cpu"}]


def test_novelty_is_measured_on_classes_outside_the_episode_if_there_are_any(
    adaptations: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(model(), classes(2), CONFIG, lambda number: None).called_unknown is None
    adaptations.clear()
    # As novel as the queries: ties count half.
    assert evaluate(model(), classes(3), CONFIG, lambda number: None).novelty_auroc == 0.5
    adaptations.clear()
    bright = torch.full((4, 1, 8, 8), 9, dtype=torch.uint8)
    monkeypatch.setattr(evaluation, "out_of_class", lambda *_: bright)
    result = evaluate(model(), classes(3), CONFIG, lambda number: None)
    assert (result.novelty_auroc, result.called_unknown) == (1.0, (0.0, 1.0))


def test_the_document_states_the_number_of_steps_taken(adaptations: list[dict[str, object]]) -> None:
    result = evaluate(model(), classes(2), CONFIG, lambda number: None)
    document = result.to_json(model(), CONFIG)
    assert document["steps"] == SMALLEST.task_learner.steps
    assert document["accuracy"] == 0.625
    assert "accuracies" not in document
    assert result.to_json(model(), replace(CONFIG, steps=0))["steps"] == 0


def test_accuracy_and_cross_entropy_of_one_adaptation_by_hand(adaptations: list[dict[str, object]]) -> None:
    episode = SimpleNamespace(queries=torch.zeros(4, 1, 8, 8), query_labels=torch.tensor([0, 0, 1, 1]))
    accuracy, entropy = measured_on(SimpleNamespace(artifact=bytes([1])), episode)  # type: ignore[arg-type]
    assert accuracy == 0.25
    assert entropy == pytest.approx(-(np.log(CONFIDENCE) + 3 * np.log(1 - CONFIDENCE)) / 4)


def test_the_interval_of_a_single_value_is_0() -> None:
    assert mean_and_interval([0.5]) == (0.5, 0.0)
