"""What the service reports about an episode, compared with the truth."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lamanas_core.adapt.held_out import Suspect
from lamanas_core.artifact import Answers, Classifier
from lamanas_core.measure import told_and_true as measured
from lamanas_core.measure.evaluate import EvaluationConfig
from lamanas_core.measure.kinds import judged_kinds
from lamanas_core.measure.told_and_true import told_and_true, with_wrong_labels
from lamanas_core.meta_model import MetaModel
from tests.learning.test_evaluation import classes, model

CONFIG = EvaluationConfig(ways=2, shots=2, queries=1, episodes=2)


class Halves:
    """Predicts class 0 for every image. The first of two images is known; of out-of-class images none."""

    def answers(self, images: np.ndarray) -> Answers:
        known = np.array([row == 0 for row in range(len(images))]) & (images.max() < 9)
        return Answers(np.tile([0.9, 0.1], (len(images), 1)).astype(np.float32), known.astype(np.float32), known)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The numbers of steps of the adaptations; the first episode has a warning, and the first label is a suspect."""
    recorded: list[int | None] = []

    def adapt(model: MetaModel, *_: object, steps: int | None, **__: object) -> SimpleNamespace:
        recorded.append(steps)
        accuracy, warnings = ((0.75, ("look",)), (0.0, ()), (0.25, ()), (0.0, ()))[len(recorded) - 1]
        suspects = (Suspect(0, 0, 1, 11.0),) if steps == 0 else ()
        return SimpleNamespace(artifact=b"", leave_one_out_accuracy=accuracy, warnings=warnings, suspects=suspects)

    def wrong(labels: torch.Tensor, ways: int, generator: torch.Generator) -> tuple[torch.Tensor, set[int]]:
        return labels, {0, 1} if len(recorded) == 1 else {1}

    monkeypatch.setattr(measured, "adapt_to", adapt)
    monkeypatch.setattr(measured, "with_wrong_labels", wrong)
    monkeypatch.setattr(Classifier, "from_bytes", lambda artifact: Halves())
    return recorded


def test_accuracy_estimate_warnings_unknown_images_and_suspects_by_hand(
    asked: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "out_of_class", lambda *_: torch.full((2, 1, 8, 8), 9, dtype=torch.uint8))
    done: list[int] = []
    found = told_and_true(model(), classes(3), replace(CONFIG, steps=5), done.append, looked_at=classes(3))
    assert asked == [5, 0, 5, 0]
    assert found["accuracy"] == (0.5, 0.0)
    assert found["estimate"] == (0.5, pytest.approx(1.96 * 0.25))
    assert found["difference"] == (0.0, pytest.approx(1.96 * 0.25))
    assert found["warned"] == 0.5
    assert found["called_unknown"] == [0.5, 1.0]
    # Of three wrong labels one is found, and of the two that are found one is wrong.
    assert found["suspects"] == {"recall": 1 / 3, "precision": 0.5, "false_per_image": 0.0}
    assert done == [1, 2]


def test_one_image_of_each_class_has_neither_an_estimate_nor_wrong_labels() -> None:
    found = told_and_true(model(), classes(3), replace(CONFIG, shots=1), lambda number: None, looked_at=classes(3))
    assert (found["estimate"], found["difference"]) == (None, None)
    assert found["suspects"] == {"recall": None, "precision": None, "false_per_image": 0.0}


def test_episodes_with_all_classes_have_no_out_of_class_images(asked: list[int | None]) -> None:
    found = told_and_true(model(), classes(2), CONFIG, lambda number: None, looked_at=classes(2))
    assert found["called_unknown"] == [0.5, None]


def test_episodes_of_photos_count_as_warned_of(asked: list[int | None]) -> None:
    noise = torch.randint(256, (9, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    photos = replace(classes(3), images=noise)
    assert told_and_true(model(), classes(3), CONFIG, lambda number: None, looked_at=photos)["warned"] == 1.0
    assert judged_kinds(photos, CONFIG, lambda number: None) == {
        "photos": 1.0,
        "reasons": {"the images have half-tones throughout": 2},
    }


@pytest.mark.parametrize(("shots", "expected"), [([5] * 8, 2), ([2] * 20, 2), ([1, 1, 1, 3], 1), ([1, 1], 0)])
def test_one_label_in_twenty_becomes_wrong_and_no_class_loses_its_only_image(shots: list[int], expected: int) -> None:
    labels = torch.arange(len(shots)).repeat_interleave(torch.tensor(shots))
    for seed in range(200):
        changed, rows = with_wrong_labels(labels, len(shots), torch.Generator().manual_seed(seed))
        assert len(rows) == expected
        assert {row for row in range(len(labels)) if changed[row] != labels[row]} == rows
        assert bool((torch.bincount(changed, minlength=len(shots)) > 0).all())
        assert int(changed.max()) < len(shots)
