"""Calibration and novelty against cases calculated by hand, and in the artifact."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.adapt.adapted import adapt, adapt_to
from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.artifact import Classifier
from lamanas_core.config import Calibration
from lamanas_core.data.episodes import out_of_class, to_float, with_out_of_class
from lamanas_core.data.folders import ImageClasses
from lamanas_core.heads import FittedHead, FittedPrototypes
from lamanas_core.measure.calibrate import _fitted_temperature, calibrated
from lamanas_core.measure.metrics import auroc, expected_calibration_error
from lamanas_core.meta_model import MetaModel
from lamanas_core.recipe import CalibrationEpisodes
from tests.learning.helpers import MINIATURE

RECIPE = CalibrationEpisodes()


def test_the_calibration_error_by_hand() -> None:
    best = np.array([0.95, 0.95, 0.55, 0.55], np.float32)
    right = np.array([True, True, True, False])
    assert expected_calibration_error(best, right) == pytest.approx((0.05 + 0.05) / 2)
    assert expected_calibration_error(np.ones(3, np.float32), np.ones(3, np.bool_)) == 0


def test_the_auroc_by_hand() -> None:
    known, novel = np.array([0.1, 0.2, 0.5], np.float32), np.array([0.2, 0.9], np.float32)
    # Of six pairs, four are in order, one is tied (0.2) and one is out of order (0.5 over 0.2).
    assert auroc(known, novel) == pytest.approx(4.5 / 6)
    assert auroc(novel, novel) == 0.5


def test_the_distance_ratio_by_hand() -> None:
    config = replace(MINIATURE, calibration=Calibration(temperature=2.0))
    features, labels = torch.tensor([[0.0, 0.0], [0.0, 4.0], [6.0, 0.0]]), torch.arange(3)
    head = TaskLearner.build(config).fitted_head({}, torch.tensor(3.0).log(), features, labels, 3)
    assert isinstance(head, FittedPrototypes)
    # The squared distances to the nearest neighbours are 16, 16 and 36, with two features.
    assert head.spread().item() == pytest.approx((8 + 8 + 18) / 3)
    queries = torch.tensor([[1.0, 1.0]])
    assert head.log_distance_ratio(queries).item() == pytest.approx(math.log(1.0 / (34 / 3)), rel=1e-4)
    logits = head.logits(queries)[0]
    assert (logits[0] - logits[1]).item() == pytest.approx(3.0 / 2 * (10 - 2) / 2)
    assert FittedHead(torch.ones(2, 2), torch.ones(2)).log_distance_ratio(queries) is None


def test_calibration_lowers_the_entropy_and_the_artifact_gives_the_same_novelty() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randint(0, 200, (6, 1, 1, 8, 8), generator=generator)
    images = (centres + torch.randint(0, 56, (6, 12, 1, 8, 8), generator=generator)).flatten(0, 1).to(torch.uint8)
    members = tuple(torch.arange(12 * i, 12 * i + 12) for i in range(6))
    classes = ImageClasses(images, members, tuple("abcdef"), ("",) * 6)
    model = MetaModel(initial_parameters(MINIATURE, 0), {"config": MINIATURE.to_json()})
    fitted = calibrated(model, classes, seed=0, recipe=RECIPE)
    assert fitted.config.calibration != Calibration()
    assert fitted.version != model.version
    assert calibrated(fitted, classes, seed=0, recipe=RECIPE).config.calibration == fitted.config.calibration
    assert query_entropy(fitted, classes) < query_entropy(model, classes)
    support = images[[0, 1, 12, 13, 24, 25]].numpy()
    adapted = adapt(
        fitted, support, np.arange(6) // 2, list("abc"), steps=0, seed=0, device="cpu", on_step=lambda *_: None
    )
    queries = images[[5, 17, 40]]
    calibration = fitted.config.calibration
    ratio = adapted.network.log_distance_ratio(queries.float() / 255)
    assert ratio is not None
    expected = torch.sigmoid(calibration.novelty_slope * (ratio - calibration.novelty_centre))
    novelty = Classifier.from_bytes(adapted.artifact).novelty(queries.numpy())
    np.testing.assert_allclose(novelty, expected.detach().numpy(), atol=1e-4)
    assert novelty[2] > novelty[:2].max()


def query_entropy(model: MetaModel, classes: ImageClasses) -> float:
    """The mean cross-entropy of the queries in the first episodes that ``calibrated`` uses."""
    found = []
    for number, (episode, _) in enumerate(with_out_of_class(classes, 5, RECIPE.shots, RECIPE.queries, 4, seed=0)):
        network = adapt_to(model, episode, steps=None, seed=number, device="cpu").network
        found.append(F.cross_entropy(network.logits(to_float(episode.queries)), episode.query_labels))
    return float(torch.stack(found).mean())


def test_too_few_classes_leave_a_model_unchanged() -> None:
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    classes = ImageClasses(images, (torch.arange(2), torch.arange(2, 4)), ("a", "b"), ("", ""))
    model = MetaModel(initial_parameters(MINIATURE, 0), {"config": MINIATURE.to_json()})
    assert calibrated(model, classes, 0, RECIPE) is model


def test_out_of_class_images_are_from_every_class_outside_the_episode_and_none_inside() -> None:
    """Every pixel of a class's images has the class's number as its value."""
    images = torch.arange(6, dtype=torch.uint8).repeat_interleave(3)[:, None, None, None].expand(-1, 1, 8, 8)
    members = tuple(torch.arange(3 * i, 3 * i + 3) for i in range(6))
    classes = ImageClasses(images, members, tuple("abcdef"), ("",) * 6)
    for episode, strange in with_out_of_class(classes, 3, 1, 2, 20, seed=0):
        inside = values(episode.support)
        assert values(episode.queries) == inside
        assert len(strange) == len(episode.queries)
        assert not inside & values(strange)
    episode, _ = next(with_out_of_class(classes, 3, 1, 2, 1, seed=0))
    many = out_of_class(classes, episode, 100, torch.Generator().manual_seed(0))
    assert values(many) == set(range(6)) - values(episode.support)


def values(images: Tensor) -> set[int]:
    return set(images.flatten().tolist())


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0, 5.0, 20.0])
def test_the_fitted_temperature_reverses_a_scale_within_its_range(temperature: float) -> None:
    """Logits that are calibrated after division by the temperature."""
    exact = 2 * torch.randn(40_000, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.multinomial(exact.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
    assert _fitted_temperature(exact * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_the_fitted_temperature_stays_within_its_range() -> None:
    right, wrong = torch.eye(4).repeat(5, 1), torch.eye(4).roll(1, 0).repeat(5, 1)
    labels = torch.arange(4).repeat(5)
    assert _fitted_temperature(right, labels) == 0.05
    assert _fitted_temperature(1000 * wrong, labels) == 20.0
