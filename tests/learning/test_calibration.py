"""Calibration and novelty against cases calculated by hand, and in the artifact."""

import math
from dataclasses import asdict, astuple, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.adapt.adapted import adapt, adapt_to
from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.artifact import Classifier
from lamanas_core.config import Calibration, Config, Novelty
from lamanas_core.data.episodes import out_of_class, with_out_of_class
from lamanas_core.data.folders import ImageClasses
from lamanas_core.heads.base import Support
from lamanas_core.heads.prototypes import FittedPrototypes
from lamanas_core.measure.calibrate import _fitted_temperature, calibrated, fitted_novelty, fitted_spread
from lamanas_core.measure.metrics import auroc, expected_calibration_error
from lamanas_core.meta_model import MetaModel
from lamanas_core.recipe import CalibrationEpisodes, recipe_for
from tests.learning.brief_training import SMALLEST

RECIPE = CalibrationEpisodes(episodes=6)


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


def of_three_classes(calibration: Calibration) -> FittedPrototypes:
    """The head fitted to prototypes at (0, 0), (0, 4) and (6, 0), the last of two images."""
    config = replace(SMALLEST, calibration=calibration)
    features, labels = torch.tensor([[0.0, 0.0], [0.0, 4.0], [6.0, 0.0], [6.0, 0.0]]), torch.tensor([0, 1, 2, 2])
    head = TaskLearner.build(config).fitted_head({}, torch.tensor(3.0).log(), Support(features, labels, 3))
    assert isinstance(head, FittedPrototypes)
    return head


def test_the_distance_to_the_classes_by_hand() -> None:
    head = of_three_classes(Calibration(temperature=2.0))
    assert head.sizes.tolist() == [1, 1, 2]
    # (3, 1): squared distances of 10, 18 and 10, with two features.
    queries = torch.tensor([[1.0, 1.0], [3.0, 1.0]])
    assert head.log_distance(queries, 0.0).tolist() == pytest.approx([math.log(1.0), math.log(5.0)], abs=1e-5)
    # Divided by 2 ** 0.5 for classes of one image and by 1.5 ** 0.5 for that of two.
    expected = [math.log(1 / 2**0.5), math.log(5 / 2**0.5)]
    assert head.log_distance(queries, 0.5).tolist() == pytest.approx(expected, abs=1e-5)
    logits = head.logits(queries)[0]
    assert (logits[0] - logits[1]).item() == pytest.approx(3.0 / 2 * (10 - 2) / 2)


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_the_reference_of_an_episode_by_hand(spread: float) -> None:
    """The nearest class other than their own is at squared distances of 16, 16, 36 and 36, with two features."""
    relative = of_three_classes(Calibration(novelty=Novelty(-1.0, 2.0, spread, 0.7, relative=0.6))).novelty
    reference = (2 * math.log(8) + 2 * math.log(18)) / 4 - spread * math.log(2)  # those classes have one image
    assert relative is not None
    assert relative.centre == pytest.approx(-1.0 + 0.6 * reference, abs=1e-5)
    assert replace(relative, centre=-1.0) == Novelty(-1.0, 2.0, spread, 0.7)
    absolute = Novelty(-1.0, 2.0, spread, 0.7)
    assert of_three_classes(Calibration(novelty=absolute)).novelty == absolute


def test_wholly_relative_novelty_does_not_depend_on_the_scale_of_the_features() -> None:
    generator = torch.Generator().manual_seed(0)
    features, queries = torch.randn(9, 4, generator=generator), torch.randn(20, 4, generator=generator)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
    learner = TaskLearner.build(replace(SMALLEST, calibration=Calibration(novelty=Novelty(0.2, 3, 0.7, 0.5, 1.0))))
    found = []
    for scale in (1, 10):
        head = learner.fitted_head({}, torch.tensor(0.0), Support(scale * features, labels, 3))
        assert isinstance(head, FittedPrototypes)
        found.append(head.log_odds(scale * queries))
    assert found[0] is not None
    assert found[1] is not None
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)


def test_relative_novelty_is_not_measured_where_there_is_one_class() -> None:
    for relative, measured in ((0.0, True), (0.5, False)):
        novelty = Novelty(0.0, 1.0, 1.0, 0.5, relative)
        learner = TaskLearner.build(replace(SMALLEST, calibration=Calibration(novelty=novelty)))
        support = Support(torch.ones(2, 2), torch.zeros(2, dtype=torch.int64), 1)
        head = learner.fitted_head({}, torch.tensor(0.0), support)
        assert isinstance(head, FittedPrototypes)
        assert (head.novelty is not None) == measured


def samples(inside: Tensor, outside: Tensor, sizes: int = 5, reference: float = 0.0) -> tuple[Tensor, Tensor]:
    """Distances with log(1 + 1 / ``sizes``) and the reference beside them."""
    beside = torch.tensor([math.log(1 + 1 / sizes), reference])
    return tuple(torch.cat([x[:, None], beside.expand(len(x), 2)], dim=1) for x in (inside, outside))  # type: ignore[return-value]


def test_the_fitted_novelty_grows_with_distance_and_five_of_a_hundred_known_images_exceed_its_threshold() -> None:
    source = torch.Generator().manual_seed(0)
    inside, outside = torch.randn(2000, generator=source) - 2, torch.randn(2000, generator=source)
    novelty = fitted_novelty(*samples(inside, outside), 0.05)
    assert novelty is not None
    # The log odds of two normal distributions of unit variance at -2 and 0: 2 (r + 1), where r is relative to size 5.
    assert novelty.slope == pytest.approx(2, rel=0.1)
    assert novelty.centre + math.log(1.2) * novelty.spread == pytest.approx(-1, abs=0.1)
    relative = inside - novelty.spread * math.log(1.2)
    above = torch.sigmoid(novelty.slope * (relative - novelty.centre)) > novelty.threshold
    assert float(above.float().mean()) == pytest.approx(0.05, abs=0.005)


def test_the_fitted_novelty_allows_for_class_means_of_few_images() -> None:
    """Distances that grow with (1 + 1 / m) to the power of 0.7."""
    source = torch.Generator().manual_seed(0)
    known: list[Tensor] = []
    novel: list[Tensor] = []
    for m in (1, 2, 5):
        shift = 0.7 * math.log(1 + 1 / m)
        inside, outside = (torch.randn(3000, generator=source) + shift - 2, torch.randn(3000, generator=source) + shift)
        for part, found in zip((known, novel), samples(inside, outside, m), strict=True):
            part.append(found)
    novelty = fitted_novelty(torch.cat(known), torch.cat(novel), 0.05)
    assert novelty is not None
    assert novelty.spread == pytest.approx(0.7, abs=0.1)


def test_the_fitted_novelty_allows_for_how_far_apart_the_classes_are() -> None:
    """Distances that grow with (1 + 1 / m) to the power of 0.7, and with the reference to that of 0.6."""
    source = torch.Generator().manual_seed(0)
    known: list[Tensor] = []
    novel: list[Tensor] = []
    for m in (1, 2, 5):
        for apart in (-0.5, 0.3, 1.0):
            usual = 0.7 * math.log(1 + 1 / m)
            # The reference was not divided by what is usual.
            shift, reference = usual + 0.6 * apart, usual + apart
            inside, outside = torch.randn(2000, generator=source) - 2, torch.randn(2000, generator=source)
            for part, found in zip((known, novel), samples(inside + shift, outside + shift, m, reference), strict=True):
                part.append(found)
    novelty = fitted_novelty(torch.cat(known), torch.cat(novel), 0.05)
    assert novelty is not None
    assert novelty.relative == pytest.approx(0.6, abs=0.05)
    assert novelty.spread == pytest.approx(0.7, abs=0.1)
    assert novelty.slope == pytest.approx(2, rel=0.1)
    assert novelty.centre == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize(("sign", "expected"), [(-1, 0.0), (3, 0.9)])
def test_relative_novelty_is_bounded(sign: float, expected: float) -> None:
    source = torch.Generator().manual_seed(0)
    parts = [
        samples(
            torch.randn(200, generator=source) - 2 + sign * at, torch.randn(200, generator=source) + sign * at, 5, at
        )
        for at in (0.0, 0.5, 1.0)
    ]
    known, novel = (torch.cat(part) for part in zip(*parts, strict=True))
    novelty = fitted_novelty(known, novel, 0.05)
    assert novelty is not None
    assert novelty.relative == expected
    assert 0 <= novelty.spread <= 2


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_separable_distances_give_a_finite_steep_novelty(scale: float) -> None:
    inside, outside = torch.linspace(-3, -1, 50) * scale, torch.linspace(1, 3, 50) * scale
    novelty = fitted_novelty(*samples(inside, outside), 0.05)
    assert novelty is not None
    assert all(math.isfinite(value) for value in astuple(novelty))
    assert novelty.slope * scale > 1
    assert abs(novelty.centre + novelty.spread * math.log(1.2)) < 0.2 * scale


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        (torch.full((20,), -20.7), torch.full((20,), -20.7)),  # a network whose features are all equal
        (torch.linspace(0, 1, 20), torch.linspace(-1, 0.5, 20)),  # novel images nearer than known ones
        (torch.full((20,), torch.nan), torch.linspace(0, 1, 20)),
        (torch.linspace(0, 1, 20), torch.full((20,), torch.inf)),
    ],
    ids=["constant", "inverted", "not a number", "infinite"],
)
def test_distances_that_tell_nothing_give_no_novelty_instead_of_a_wrong_one(inside: Tensor, outside: Tensor) -> None:
    assert fitted_novelty(*samples(inside, outside), 0.05) is None


def test_a_card_from_before_this_novelty_is_read_without_it() -> None:
    card = SMALLEST.to_json()
    card["calibration"] = {"temperature": 0.8, "novelty_centre": -0.4, "novelty_slope": 5.7}
    assert Config.from_json(card).calibration == Calibration(0.8, None)
    novelty = Novelty(-1.0, 5.0, 0.3, 0.7)
    again = Config.from_json(replace(SMALLEST, calibration=Calibration(0.8, novelty)).to_json())
    assert again.calibration == Calibration(0.8, novelty)


def test_calibration_lowers_the_entropy_and_the_artifact_gives_the_same_novelty() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randint(0, 200, (6, 1, 1, 8, 8), generator=generator)
    images = (centres + torch.randint(0, 56, (6, 12, 1, 8, 8), generator=generator)).flatten(0, 1).to(torch.uint8)
    members = tuple(torch.arange(12 * i, 12 * i + 12) for i in range(6))
    classes = ImageClasses(images, members, tuple("abcdef"), ("",) * 6)
    model = MetaModel(initial_parameters(SMALLEST, 0), {"config": SMALLEST.to_json()})
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
    novelty = fitted.config.calibration.novelty
    assert novelty is not None
    head = adapted.network.head
    assert isinstance(head, FittedPrototypes)
    with torch.no_grad():
        distance = head.log_distance(adapted.network.embed(queries), novelty.spread)
    expected = torch.sigmoid(novelty.slope * (distance - novelty.centre)).numpy()
    answers = Classifier.from_bytes(adapted.artifact).answers(queries.numpy())
    assert answers.novelty is not None
    assert answers.known is not None
    np.testing.assert_allclose(answers.novelty, expected, atol=1e-4)
    assert answers.novelty[2] > answers.novelty[:2].max()
    np.testing.assert_array_equal(answers.known, answers.novelty <= np.float32(novelty.threshold))
    # The threshold decides: with one between the two, the third image alone is unknown.
    between = replace(novelty, threshold=float(answers.novelty[:2].max() + answers.novelty[2]) / 2)
    config = replace(fitted.config, calibration=replace(fitted.config.calibration, novelty=between))
    other = MetaModel(fitted.parameters, fitted.card | {"config": config.to_json()})
    adapted = adapt(
        other, support, np.arange(6) // 2, list("abc"), steps=0, seed=0, device="cpu", on_step=lambda *_: None
    )
    known = Classifier.from_bytes(adapted.artifact).answers(queries.numpy()).known
    assert known is not None
    assert known.tolist() == [True, True, False]


def test_a_model_without_calibrated_novelty_does_not_claim_to_know() -> None:
    model = MetaModel(initial_parameters(SMALLEST, 0), {"config": SMALLEST.to_json()})
    images = torch.randint(0, 256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    labels = np.array([0, 0, 1, 1])
    adapted = adapt(model, images, labels, ["a", "b"], steps=0, seed=0, device="cpu", on_step=lambda *_: None)
    answers = Classifier.from_bytes(adapted.artifact).answers(images)
    assert (answers.novelty, answers.known) == (None, None)


def query_entropy(model: MetaModel, classes: ImageClasses) -> float:
    """The mean cross-entropy of the queries in the first episodes that ``calibrated`` uses."""
    found = []
    for number, (episode, _) in enumerate(with_out_of_class(classes, 5, RECIPE.shots, RECIPE.queries, 4, seed=0)):
        network = adapt_to(model, episode, steps=None, seed=number, device="cpu").network
        found.append(F.cross_entropy(network.logits(episode.queries), episode.query_labels))
    return float(torch.stack(found).mean())


@pytest.mark.parametrize("groups", ["aaaabb", "aabbcc", "abcdef"])
def test_episodes_within_groups_have_as_many_classes_as_their_group(groups: str) -> None:
    images = torch.randint(0, 256, (30, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    classes = ImageClasses(images, tuple(torch.arange(30).view(6, 5)), tuple("uvwxyz"), tuple(groups))
    model = MetaModel(initial_parameters(SMALLEST, 0), {"config": SMALLEST.to_json()})
    fitted = calibrated(model, classes, 0, replace(RECIPE, episodes=4, ways=4, within_group=True))
    assert fitted.config.calibration.temperature != 1.0


@pytest.mark.parametrize("asked", [True, False])
def test_novelty_is_relative_where_the_recipe_asks_for_it(asked: bool) -> None:
    """Images of the second group's classes differ more, within classes and between them."""
    generator = torch.Generator().manual_seed(0)
    contrast = torch.tensor([10.0] * 4 + [60.0] * 4)[:, None, None, None, None]
    deviations = torch.randn(8, 1, 1, 8, 8, generator=generator) + 0.7 * torch.randn(8, 8, 1, 8, 8, generator=generator)
    images = (128 + contrast * deviations).clamp(0, 255).to(torch.uint8).flatten(0, 1)
    classes = ImageClasses(images, tuple(torch.arange(64).view(8, 8)), tuple("stuvwxyz"), tuple("aaaabbbb"))
    spec = replace(SMALLEST.network.image, normalise_polarity=False)
    config = replace(SMALLEST, network=replace(SMALLEST.network, image=spec))
    model = MetaModel(initial_parameters(config, 0), {"config": config.to_json()})
    recipe = replace(RECIPE, ways=3, episodes=8, queries=3, within_group=True, relative_novelty=asked)
    novelty = calibrated(model, classes, 0, recipe).config.calibration.novelty
    assert novelty is not None
    assert (novelty.relative > 0.1) == asked
    assert recipe_for("photos").calibration.relative_novelty
    assert not recipe_for("serving").calibration.relative_novelty


def test_the_temperature_is_fitted_to_all_images_of_episodes_of_any_number_of_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    answered = []
    for ways, images, temperature in ((2, 20_000, 3.0), (7, 20_000, 3.0), (5, 100, 30.0)):  # few images decide little
        exact = 2 * torch.randn(images, ways, generator=generator)
        labels = torch.multinomial(exact.softmax(1), 1, generator=generator).squeeze(1)
        answered.append((temperature * exact, labels))
    assert _fitted_temperature(answered) == pytest.approx(3, rel=0.05)


def test_the_temperature_follows_the_number_of_images_of_a_class() -> None:
    temperatures = {shots: 1.3 * (1 + 1 / shots) ** 0.8 for shots in (1, 2, 5)}
    assert fitted_spread(temperatures) == pytest.approx((1.3, 0.8), abs=1e-4)
    assert fitted_spread({5: 0.7}) == (0.7, 0.0)

    calibration = Calibration(1.3, None, 0.8)
    learner = TaskLearner.build(replace(SMALLEST, calibration=calibration))
    assert Calibration.from_json(asdict(calibration)) == calibration
    for crops in (False, True):
        assert float(learner.temperature(torch.tensor([2, 2]), crops=crops)) == pytest.approx(1.3 * 1.5**0.8)
        assert float(learner.temperature(torch.tensor([1, 2]), crops=crops)) == pytest.approx(1.3 * 1.75**0.8)
    features, labels = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1, 1])
    plain = TaskLearner.build(SMALLEST)
    support, zero = Support(features, labels, 2), torch.tensor(0.0)
    one, other = (each.fitted_head({}, zero, support).logits(features) for each in (learner, plain))
    torch.testing.assert_close(one * 1.3 * 1.5**0.8, other)


def test_too_few_classes_leave_a_model_unchanged() -> None:
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    classes = ImageClasses(images, (torch.arange(2), torch.arange(2, 4)), ("a", "b"), ("", ""))
    model = MetaModel(initial_parameters(SMALLEST, 0), {"config": SMALLEST.to_json()})
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
    """Logits that are calibrated after division by the temperature: labels are as frequent as they are likely."""
    likely = torch.tensor([4, 2, 1, 1])
    labels = torch.arange(4).repeat_interleave(likely)
    exact = likely.log().expand(len(labels), -1)
    assert _fitted_temperature([(exact * temperature, labels)]) == pytest.approx(temperature, rel=0.01)


def test_the_fitted_temperature_stays_within_its_range() -> None:
    right, wrong = torch.eye(4).repeat(5, 1), torch.eye(4).roll(1, 0).repeat(5, 1)
    labels = torch.arange(4).repeat(5)
    assert _fitted_temperature([(right, labels)]) == 0.05
    assert _fitted_temperature([(1000 * wrong, labels)]) == 20.0
