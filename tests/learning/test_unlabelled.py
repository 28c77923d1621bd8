"""Images without a label: which of them belong to the classes, and what they do to the head and its artifact."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cli.main import main
from lamanas_core.adapt import adapted as adapting
from lamanas_core.adapt.adapted import Adapted, adapt
from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.adapt.unlabelled import FEWEST, fit_with
from lamanas_core.artifact import Classifier
from lamanas_core.config import PRESETS, Calibration, Config, Novelty
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.heads.base import Support, Unlabelled
from lamanas_core.heads.gaussian import FittedGaussian, GaussianHead
from lamanas_core.heads.prototypes import FittedPrototypes, PrototypeHead, class_means
from lamanas_core.image_spec import UNLABELLED
from lamanas_core.images import UInt8Array
from lamanas_core.meta_model import MetaModel, shipped
from tests.learning.helpers import glyph_support
from tests.learning.test_gaussian import D, prior, random_features

ONE = torch.tensor(1.0)
WHOLE = torch.eye(3, dtype=torch.float64)[torch.tensor([2, 0, 2, 1])]  # the shares of images that are sure
# Novelty of one half at a squared distance of 1, and almost sure at half and twice that.
NOVELTY = Novelty(centre=0.0, slope=10.0, spread=0.0, threshold=0.5)


@pytest.fixture(scope="module")
def model() -> MetaModel:
    return MetaModel.from_bytes(*shipped())


def learner_with(novelty: Novelty | None) -> TaskLearner:
    return TaskLearner.build(replace(PRESETS["tiny"], calibration=Calibration(novelty=novelty)))


def found_by(learner: TaskLearner, features: Tensor, labels: Tensor, unlabelled: Tensor) -> tuple[Tensor, float | None]:
    """The class means of the head, (ways, d), and the fraction that belongs. With this scale logits are squared
    distances."""
    ways, d = int(labels.max()) + 1, features.shape[1]
    found = fit_with(learner, {}, torch.tensor(float(d)).log(), Support(features, labels, ways), unlabelled)
    assert isinstance(found.head, FittedPrototypes)
    return found.head.weight / 2, found.belonging


# ---------------------------------------------------------------------- heads


@pytest.mark.parametrize("head", [PrototypeHead, GaussianHead])
def test_an_unlabelled_image_that_counts_wholly_for_a_class_is_one_of_its_labelled_images(
    head: type[PrototypeHead | GaussianHead],
) -> None:
    support, labels, more, queries = (
        random_features(6),
        torch.tensor([0, 0, 1, 1, 2, 2]),
        random_features(4, seed=2),
        random_features(5, seed=3),
    )
    theta, scale, made = prior(), torch.tensor(0.7, dtype=torch.float64), head(PRESETS["tiny"].network)
    all_labelled = Support(torch.cat([support, more]), torch.cat([labels, WHOLE.argmax(1)]), 3)
    known = made.fit(theta, all_labelled, scale)
    found = made.fit(theta, Support(support, labels, 3, unlabelled=Unlabelled(more, WHOLE)), scale)
    torch.testing.assert_close(found.logits(queries), known.logits(queries))


@pytest.mark.parametrize("head", [PrototypeHead, GaussianHead])
def test_an_unlabelled_image_that_counts_for_no_class_changes_nothing(head: type[PrototypeHead | GaussianHead]) -> None:
    support, labels, more = random_features(6), torch.tensor([0, 0, 1, 1, 2, 2]), random_features(4, seed=2)
    theta, scale, made = prior(), torch.tensor(0.7, dtype=torch.float64), head(PRESETS["tiny"].network)
    plain = made.fit(theta, Support(support, labels, 3), scale)
    found = made.fit(theta, Support(support, labels, 3, unlabelled=Unlabelled(more, torch.zeros_like(WHOLE))), scale)
    torch.testing.assert_close(found.logits(support), plain.logits(support))


def test_an_image_shared_between_classes_counts_for_each_by_its_share() -> None:
    features, labels = torch.tensor([[0.0], [2.0], [10.0]]), torch.tensor([0, 0, 1])
    shares = torch.tensor([[0.5, 0.25]])
    means, sizes = class_means(Support(features, labels, 2, unlabelled=Unlabelled(torch.tensor([[6.0]]), shares)))
    torch.testing.assert_close(sizes, torch.tensor([2.5, 1.25]))
    torch.testing.assert_close(means, torch.tensor([[(0 + 2 + 3) / 2.5], [(10 + 1.5) / 1.25]]))


def test_the_scatter_of_shared_images_counts_as_many_images_as_their_shares() -> None:
    """Two images that count by one half are one image."""
    support, labels = random_features(5), torch.tensor([0, 0, 1, 1, 2])
    theta, scale, made = prior(), torch.tensor(1.0, dtype=torch.float64), GaussianHead(PRESETS["photos"].network)
    one = Unlabelled(support[:1], WHOLE[:1])
    two = Unlabelled(support[:1].expand(2, D), WHOLE[:1].expand(2, 3) / 2)
    whole, halves = (made.fit(theta, Support(support, labels, 3, unlabelled=more), scale) for more in (one, two))
    torch.testing.assert_close(halves.logits(support), whole.logits(support))


def test_the_temperature_is_that_of_the_labelled_images_alone() -> None:
    calibration = Calibration(temperature=1.3, temperature_spread=0.8)
    learner = TaskLearner.build(replace(PRESETS["tiny"], calibration=calibration))
    support, more = random_features(3), random_features(3, seed=2)
    whole = torch.eye(3, dtype=torch.float64)
    with_more = Support(support, torch.arange(3), 3, unlabelled=Unlabelled(more, whole))
    found = learner.fitted_head({}, ONE.log(), with_more)
    assert isinstance(found, FittedPrototypes)
    assert found.sizes.tolist() == [2, 2, 2]
    assert 1 / float(found.scale) == pytest.approx(1.3 * 2**0.8)


# ---------------------------------------------------------------------- which belong


def test_class_means_move_to_the_images_that_belong_and_not_to_others() -> None:
    features, labels = torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1])
    near = torch.tensor([[0.0, 0.6], [0.0, 0.6], [9.0, -0.6], [9.0, -0.6]])
    far = torch.tensor([[0.0, 7.0], [9.0, 7.0], [4.5, 7.0]])
    means, belonging = found_by(learner_with(NOVELTY), features, labels, torch.cat([near, far]))
    assert belonging == pytest.approx(4 / 7, abs=0.01)
    torch.testing.assert_close(means, torch.tensor([[0.0, 0.4], [9.0, -0.4]]), rtol=0, atol=0.01)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_where_novelty_is_relative_others_are_told_by_how_far_apart_the_classes_are(scale: float) -> None:
    relative = replace(NOVELTY, centre=math.log(0.05), relative=1.0)
    features, labels = scale * torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1])
    unlabelled = scale * torch.tensor([[0.0, 0.6], [9.0, -0.6], [0.0, 7.0], [9.0, 7.0], [4.5, 7.0]])
    _, belonging = found_by(learner_with(relative), features, labels, unlabelled)
    assert belonging == pytest.approx(2 / 5, abs=0.01)


def test_the_more_images_belong_the_more_a_doubtful_one_counts() -> None:
    features, labels = torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1])
    doubtful, own = torch.tensor([[0.0, 1.42]]), torch.zeros(9, 2)
    moved = []
    for others in (0, 9):
        given = torch.cat([doubtful, own, torch.full((others, 2), 5.0)])
        moved.append(float(found_by(learner_with(NOVELTY), features, labels, given)[0][0, 1]))
    assert moved[0] > 1.05 * moved[1] > 0


def test_a_class_that_would_get_most_images_gets_fewer_of_those_that_may_be_of_others() -> None:
    """Three images lie between each of the other two classes and the first, and a little nearer to the first."""
    features, labels = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]), torch.arange(3)
    between = torch.tensor([[1.9, 0.0], [0.0, 1.9]]).repeat(3, 1)
    found = fit_with(learner_with(None), {}, torch.tensor(2.0).log(), Support(features, labels, 3), between).head
    assert isinstance(found, FittedPrototypes)
    assert float(found.sizes.sum()) == pytest.approx(9, abs=1e-4)
    logits = -torch.cdist(between, features).square()
    alone = 1 + logits.softmax(1).sum(0)
    assert alone[0] > found.sizes[0] > 3.0
    expected = 1 + (logits - found.sizes.log() / 2).softmax(1).sum(0)
    torch.testing.assert_close(found.sizes, expected, rtol=0, atol=1e-3)


def test_where_too_few_seem_to_belong_none_is_used() -> None:
    features, labels = torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1])
    one, others = torch.tensor([[0.0, 0.5]]), torch.full((9, 2), 5.0)
    means, belonging = found_by(learner_with(NOVELTY), features, labels, torch.cat([one, others]))
    assert belonging == pytest.approx(0.1, abs=0.01)
    assert belonging is not None
    assert belonging < FEWEST
    assert torch.equal(means, features)
    means, belonging = found_by(learner_with(NOVELTY), features, labels, torch.cat([one, others[:3]]))
    assert belonging is not None
    assert belonging > FEWEST
    assert not torch.equal(means, features)


def test_without_calibrated_novelty_all_count() -> None:
    features, labels = torch.tensor([[0.0], [9.0]]), torch.tensor([0, 1])
    means, belonging = found_by(learner_with(None), features, labels, torch.tensor([[-3.0]]))
    assert belonging == 1
    torch.testing.assert_close(means, torch.tensor([[-1.5], [9.0]]))


def test_a_head_with_a_layer_of_its_own_ignores_them() -> None:
    config = replace(PRESETS["paper_small"], network=replace(PRESETS["paper_small"].network, ways=2))
    learner = TaskLearner.build(Config("paper_small", config.network, config.task_learner))
    layer = {"head.weight": torch.eye(2), "head.bias": torch.zeros(2)}
    found = fit_with(learner, layer, ONE, Support(torch.eye(2), torch.arange(2), 2), torch.eye(2))
    assert torch.equal(found.head.weight, torch.eye(2))
    assert found.belonging is None


# ---------------------------------------------------------------------- an adaptation


def adapted(model: MetaModel, support: UInt8Array, labels: np.ndarray, *, judged: bool = False) -> Adapted:
    classes = [str(label) for label in range(int(labels.max()) + 1)]
    return adapt(model, support, labels, classes, steps=2, seed=0, device="cpu", on_step=lambda *_: None, judged=judged)


def test_the_artifact_has_what_unlabelled_images_add_and_each_query_is_judged_alone(model: MetaModel) -> None:
    images, truth = glyph_support(5, [7] * 5, seed=1)
    labels = np.where(np.arange(35) % 7 == 0, truth, UNLABELLED)
    with_them, without = adapted(model, images, labels), adapted(model, images[labels >= 0], labels[labels >= 0])
    network = with_them.network
    assert without.unlabelled_belonging is None
    assert with_them.unlabelled_belonging is not None
    assert with_them.unlabelled_belonging > 0.9
    queries, _ = glyph_support(5, [2] * 5, seed=1)
    answers = Classifier.from_bytes(with_them.artifact)
    logits = answers.logits(queries)
    with torch.no_grad():
        torch.testing.assert_close(network.logits(torch.from_numpy(queries)).numpy(), logits, rtol=0, atol=2e-3)
    for number, query in enumerate(queries):
        np.testing.assert_allclose(answers.logits(query[None]), logits[number : number + 1], rtol=0, atol=2e-3)
    assert np.abs(Classifier.from_bytes(without.artifact).logits(queries) - logits).max() > 0.1
    assert isinstance(network.head, FittedPrototypes)
    torch.testing.assert_close(network.head.sizes.sum(), torch.tensor(35.0), rtol=0, atol=1.0)
    assert with_them.losses == without.losses  # the steps are those without them
    assert with_them.genotype == without.genotype


def test_many_are_embedded_in_parts_and_all_count(model: MetaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    images, truth = glyph_support(3, [6] * 3, seed=4)
    labels = np.where(np.arange(18) % 6 == 0, truth, UNLABELLED)
    whole = adapted(model, images, labels)
    monkeypatch.setattr(adapting, "LARGEST_BATCH", 4)
    parts = adapted(model, images, labels)
    torch.testing.assert_close(parts.network.head.weight, whole.network.head.weight)
    torch.testing.assert_close(parts.network.head.bias, whole.network.head.bias)


def test_a_model_for_photos_learns_from_them_and_its_artifact_says_what_it_says() -> None:
    photos = MetaModel.from_bytes(*shipped("photos"))
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (3, 3, 1, 1))
    noise = generator.integers(-40, 41, (18, 3, 224, 224))
    truth = np.arange(18) % 3
    images = np.clip(colours[truth] + noise, 0, 255).astype(np.uint8)
    labels = np.where(np.arange(18) < 3, truth, UNLABELLED)
    found = adapted(photos, images, labels)
    assert isinstance(found.network.head, FittedGaussian)
    torch.testing.assert_close(found.network.head.sizes.sum(), torch.tensor(18.0), rtol=0, atol=0.5)
    answers = Classifier.from_bytes(found.artifact).answers(images[3:9])
    with torch.no_grad():
        features = found.network.embed(torch.from_numpy(images[3:9]))
        logits = found.network.head.logits(features)
        log_odds = found.network.head.log_odds(features)
        assert log_odds is not None
    np.testing.assert_allclose(answers.probabilities, logits.softmax(1).numpy(), rtol=0, atol=5e-3)
    assert answers.novelty is not None
    np.testing.assert_allclose(answers.novelty, torch.sigmoid(log_odds).numpy(), rtol=0, atol=2e-2)


def test_a_model_that_cannot_learn_from_them_says_so() -> None:
    config = replace(PRESETS["paper_small"], network=replace(PRESETS["paper_small"].network, ways=3))
    linear = MetaModel(initial_parameters(config, 0), {"config": config.to_json()})
    images, truth = glyph_support(3, [2] * 3, seed=5)
    found = adapted(linear, images, np.where(np.arange(6) % 2 == 0, truth, UNLABELLED))
    assert found.unlabelled_belonging is None
    assert found.warnings == ("The images without a label were not used: this meta-model cannot learn from them.",)
    assert adapted(linear, images, truth).warnings == ()


def test_what_is_told_of_the_support_set_is_about_its_labelled_images(model: MetaModel) -> None:
    images, truth = glyph_support(3, [4] * 3, seed=2)
    blank = np.zeros((2, 1, 28, 28), np.uint8)
    support, labels = np.concatenate([images, blank]), np.concatenate([truth, [UNLABELLED] * 2])
    found, plain = adapted(model, support, labels, judged=True), adapted(model, images, truth, judged=True)
    for name in ("leave_one_out_accuracy", "suspects", "support_accuracy"):
        assert getattr(found, name) == getattr(plain, name)
    assert not plain.warnings
    assert found.warnings == (
        "Only about 0% of the images without a label seem to show one of the classes, so none of them was used.",
    )


def test_where_none_belongs_the_classifier_is_that_without_them(model: MetaModel) -> None:
    images, truth = glyph_support(5, [2] * 5, seed=3)
    noise = np.random.default_rng(0).integers(0, 256, (20, 1, 28, 28), dtype=np.uint8)
    found = adapted(model, np.concatenate([images, noise]), np.concatenate([truth, [UNLABELLED] * 20]))
    plain = adapted(model, images, truth)
    np.testing.assert_allclose(
        Classifier.from_bytes(found.artifact).logits(images), Classifier.from_bytes(plain.artifact).logits(images)
    )


def test_the_evaluation_compares_the_same_episodes_with_and_without_them(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path_factory.mktemp("unlabelled") / "glyphs"
    write_folders(data, classes=8, images=8, seed=1)
    options = ["--split", "all", "--ways", "4", "--shots", "1", "--queries", "2", "--episodes", "2", "--steps", "0"]
    assert main(["evaluate", "--data", str(data), *options, "--unlabelled", "5", "--others", "10"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = document["unlabelled"]
    assert list(found) == ["none", "own", "mixed", "others"]
    assert (document["per_class"], document["others"]) == (5, 10)
    assert found["none"]["over_none"] == [0, 0]
    assert found["none"]["belonging"] is None
    assert found["own"]["belonging"] > 0.9 > found["mixed"]["belonging"] > 0.3 > found["others"]["belonging"]
    for row in found.values():
        assert row["over_none"][0] == pytest.approx(row["accuracy"][0] - found["none"]["accuracy"][0], abs=1e-4)


def test_an_evaluation_needs_enough_images_of_each_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folders(tmp_path, classes=3, images=5, seed=1)
    options = [
        "--split",
        "all",
        "--ways",
        "2",
        "--shots",
        "1",
        "--queries",
        "2",
        "--episodes",
        "1",
        "--unlabelled",
        "3",
    ]
    assert main(["evaluate", "--data", str(tmp_path), *options]) == 1
    assert "glyph000 has fewer than 6 images: 3 classes are too small" in capsys.readouterr().err


def test_others_without_unlabelled_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--data", "nowhere", "--others", "3"]) == 1
    assert "--others is for --unlabelled only" in capsys.readouterr().err
