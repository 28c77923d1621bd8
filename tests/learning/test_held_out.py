"""The accuracy that a support set predicts for new images, and the labels that it contradicts."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lamanas_core.adapt import adapted as adapting
from lamanas_core.adapt.adapted import adapt
from lamanas_core.adapt.held_out import DOUBT, Embed, Suspect, _by_one_image, held_out_accuracy, suspects
from lamanas_core.heads.prototypes import prototypes
from lamanas_core.meta_model import MetaModel, shipped
from tests.learning.helpers import glyph_support


@pytest.fixture(scope="module")
def model() -> MetaModel:
    return MetaModel.from_bytes(*shipped())


def estimate(features: Tensor, labels: Tensor, seed: int = 0) -> float | None:
    """The estimate for a network that does not learn: the features do not depend on the half that it is given."""
    return held_out_accuracy(lambda rows: features, labels, int(labels.max()) + 1, torch.Generator().manual_seed(seed))


def test_features_without_information_give_the_accuracy_of_guessing() -> None:
    source = torch.Generator().manual_seed(0)
    for shots in (2, 3, 5):
        labels = torch.arange(10).repeat_interleave(shots)
        found = [estimate(torch.randn(len(labels), 8, generator=source), labels, seed) or 0.0 for seed in range(300)]
        assert np.mean(found) == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize("shots", [[5] * 10, [1, 2, 3, 4, 5] * 2, [20, 20]])
def test_the_estimate_is_on_average_the_accuracy_on_new_images(shots: list[int]) -> None:
    source, ways = torch.Generator().manual_seed(1), len(shots)
    labels = torch.arange(ways).repeat_interleave(torch.tensor(shots))
    new = torch.arange(ways).repeat_interleave(20)
    found, truth = [], []
    for seed in range(150):
        centres = torch.randn(ways, 6, generator=source)
        features = centres[labels] + 0.7 * torch.randn(len(labels), 6, generator=source)
        queries = centres[new] + 0.7 * torch.randn(len(new), 6, generator=source)
        nearest = torch.cdist(queries, prototypes(features, labels, ways)).argmin(1)
        truth.append(float((nearest == new).float().mean()))
        found.append(estimate(features, labels, seed) or 0.0)
    assert np.mean(found) == pytest.approx(np.mean(truth), abs=0.025)


def test_with_two_images_of_each_class_the_estimate_is_that_for_one() -> None:
    """There is no third image to measure the benefit of the second one with."""
    features, labels = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)), torch.arange(10).repeat(2)
    assert (estimate(features, labels) or 0.0) * 10 == pytest.approx(round((estimate(features, labels) or 0.0) * 10))


def test_one_image_of_each_class_predicts_nothing() -> None:
    assert estimate(torch.randn(4, 3), torch.arange(4)) is None


def test_a_random_half_of_each_class_is_learned_from() -> None:
    labels = torch.arange(5).repeat_interleave(torch.tensor([1, 2, 3, 4, 5]))
    features, halves = torch.randn(len(labels), 3), []
    for seed in range(40):

        def embed(rows: Tensor) -> Tensor:
            halves.append(rows)
            return features

        held_out_accuracy(embed, labels, 5, torch.Generator().manual_seed(seed))
    sizes = {tuple(torch.bincount(labels[rows], minlength=5).tolist()) for rows in halves}
    assert sizes == {(1, 1, 1, 2, 2), (1, 1, 2, 2, 2)}
    assert set(torch.cat(halves).tolist()) == set(range(15))
    assert all(rows.tolist() == sorted(set(rows.tolist())) for rows in halves)


def test_an_image_is_compared_with_class_means_without_it() -> None:
    """Each image of the first class lies at the other class; only a class mean that contains it would be nearer."""
    features = torch.tensor([[0.0], [10.0], [10.5], [-10.0], [0.1], [0.1], [0.1], [0.1]])
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert all((estimate(features, labels, seed) or 0.0) <= 0.8 for seed in range(20))
    apart = torch.tensor([[0.0], [0.0], [9.0], [9.0]])
    assert estimate(apart, torch.tensor([0, 0, 1, 1])) == 1.0
    assert estimate(apart, torch.tensor([0, 1, 1, 0])) is not None


def test_an_image_is_compared_with_the_other_single_images_of_its_class() -> None:
    features, labels = torch.tensor([[0.0], [10.0], [1.0], [1.5]]), torch.tensor([0, 0, 1, 1])
    # The mean of class 1, 1.25, is nearer to either image of class 0 than the other one is; in class 1 the other image
    # is the nearer one.
    for judged, expected in (([0], 0.0), ([1], 0.0), ([2], 1.0), ([0, 2], 0.5)):
        chosen = torch.zeros(4, dtype=torch.bool).index_fill(0, torch.tensor(judged), True)
        assert _by_one_image(features, labels, 2, chosen) == expected


def test_noise_with_random_labels_is_not_reported_as_learned(model: MetaModel) -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(8):
        noise, labels = rng.integers(0, 256, (20, 1, 28, 28), dtype=np.uint8), np.arange(10).repeat(2)
        result = adapt(
            model, noise, labels, [str(i) for i in range(10)], steps=None, seed=0, device="cpu", on_step=lambda *_: None
        )
        assert result.support_accuracy == 1.0
        found.append(result.leave_one_out_accuracy or 0.0)
    assert np.mean(found) < 0.25  # 80 images: 0.1, with a standard error of 0.034


def test_the_images_set_aside_take_no_part_in_the_steps(model: MetaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    support, labels = glyph_support(4, [4] * 4, seed=1)
    half = torch.tensor([row for row in range(16) if row % 4 < 2])
    found: list[Tensor] = []

    def ask(embed: Embed, *_: object) -> float:
        found.append(embed(half))
        return 0.5

    monkeypatch.setattr(adapting, "held_out_accuracy", ask)
    other = support.copy()
    other[[row for row in range(16) if row % 4 >= 2]] = 255 - other[:8]
    for images in (support, other):
        adapt(model, images, labels, list("abcd"), steps=2, seed=0, device="cpu", on_step=lambda *_: None)
    torch.testing.assert_close(found[0][half], found[1][half], rtol=1e-4, atol=1e-4)
    learned_from, of = support[half.numpy()], labels[half.numpy()]
    alone = adapt(
        model,
        learned_from,
        of,
        list("abcd"),
        steps=2,
        seed=0,
        device="cpu",
        on_step=lambda *_: None,
        judged=False,
    )
    torch.testing.assert_close(found[0][half], alone.network.support.features, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found[0], found[1], rtol=1e-2)
    untouched = torch.tensor([row for row in range(16) if row % 4 >= 2])
    assert bool(found[0][untouched].abs().sum(1).gt(0).all())


def test_a_label_is_doubtful_if_another_class_is_ten_times_as_likely() -> None:
    margin = float(np.log(DOUBT))
    logits = torch.tensor(
        [[0.0, margin + 0.01, -9.0], [0.0, margin - 0.01, 0.0], [5.0, 0.0, 0.0], [0.0, 0.0, -4.0], [0.0, 30.0, 0.0]]
    )
    labels = torch.tensor([0, 0, 0, 2, 0])  # class 2 has one image
    found = suspects(logits, labels)
    assert [(one.row, one.label, one.likelier) for one in found] == [(4, 0, 1), (0, 0, 1)]
    assert found[0].times == 1e6  # the largest factor that is reported
    assert found[1].times == pytest.approx(DOUBT * np.exp(0.01), rel=1e-4)


def test_wrong_labels_are_suspects_and_right_ones_are_not(model: MetaModel) -> None:
    support, labels = glyph_support(6, [5] * 6, seed=2)
    wrong = labels.copy()
    wrong[7], wrong[23] = 4, 0
    found = [
        adapt(
            model, support, given, list("abcdef"), steps=steps, seed=0, device="cpu", on_step=lambda *_: None
        ).suspects
        for given, steps in ((labels, None), (wrong, None), (wrong, 0))
    ]
    assert found[0] == ()
    for one in found[1:]:
        assert {(s.row, s.label, s.likelier) for s in one} == {(7, 4, 1), (23, 0, 4)}
        assert isinstance(one[0], Suspect)
        assert one[0].times >= one[1].times >= DOUBT
    # The steps learn wrong labels as well, so that doubts are those of the network before its first step.
    assert [s.times for s in found[1]] == pytest.approx([s.times for s in found[2]], rel=1e-3)
