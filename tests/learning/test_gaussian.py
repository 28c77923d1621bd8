"""The Gaussian head against its definition, computed with whole covariance matrices in float64."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lamanas_core.adapt.adapted import adapt
from lamanas_core.adapt.inner import steps
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.artifact import Classifier
from lamanas_core.config import Calibration, Novelty
from lamanas_core.data.episodes import to_float
from lamanas_core.heads.base import Support
from lamanas_core.heads.gaussian import FittedGaussian, GaussianHead, leave_one_out_logits
from lamanas_core.meta_model import MetaModel
from tests.learning.helpers import MINIATURE

D = 6
UNEVEN = torch.tensor([0, 1, 1, 2, 2, 2, 0, 1, 3, 3])
CONFIG = replace(MINIATURE, network=replace(MINIATURE.network, head="gaussian"))
HEAD = GaussianHead(CONFIG.network)


def prior(seed: int = 0) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    values = {
        "centre": 0.1 * torch.randn(D, generator=source),
        "log_scales": 0.3 * torch.randn(D, generator=source),
        "directions": 0.3 * torch.randn(2, D, generator=source),
        "log_pull": torch.tensor(-0.3),
        "log_weight": torch.tensor(1.1),
        "log_variance": torch.tensor(-2.0),
    }
    return {f"head.{name}": value.double() for name, value in values.items()}


def random_features(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(
    theta: Mapping[str, Tensor],
    support: Tensor,
    labels: Tensor,
    ways: int,
    queries: Tensor,
    crops: Tensor | None = None,
) -> Tensor:
    """The logits of the module's docstring, for support (n, d), queries (m, d) and crops (n, v, d): (m, ways)."""

    def z(x: Tensor) -> Tensor:
        scaled = (x - theta["head.centre"]) * theta["head.log_scales"].exp()
        shortened = scaled @ (torch.eye(D) - theta["head.directions"].T @ theta["head.directions"])
        unit: Tensor = shortened / shortened.norm(dim=1, keepdim=True)
        return unit

    pull, weight, variance = (theta[f"head.log_{name}"].exp() for name in ("pull", "weight", "variance"))
    own, asked = z(support), z(queries)
    means = torch.stack([own[labels == label].mean(0) for label in range(ways)])
    sizes = torch.stack([(labels == label).sum() for label in range(ways)])
    middle = means.mean(0)
    pulled = (sizes / (sizes + pull))[:, None] * (means - middle)
    scatter = sum(torch.outer(r, r) for r in own - means[labels])
    if crops is not None:
        for image, of_image in zip(own, crops, strict=True):
            scatter += torch.stack([torch.outer(s, s) for s in z(of_image) - image]).mean(0)
    precision = torch.linalg.inv(
        (weight * variance * torch.eye(D, dtype=torch.float64) + scatter) / (weight + len(labels) - ways)
    )
    logits: Tensor = (asked - middle) @ precision @ pulled.T - (pulled @ precision * pulled).sum(1) / 2
    return logits


def test_the_fitted_head_is_discriminant_analysis_with_a_prior() -> None:
    support, queries, theta = random_features(len(UNEVEN)), random_features(7, seed=2), prior()
    head = HEAD.fit(theta, Support(support, UNEVEN, 4), torch.tensor(0.7, dtype=torch.float64))
    torch.testing.assert_close(head.logits(queries), 0.7 * by_definition(theta, support, UNEVEN, 4, queries))


def test_crops_add_the_mean_scatter_of_each_image_to_the_covariance() -> None:
    support, queries, theta = random_features(len(UNEVEN)), random_features(7, seed=2), prior()
    crops = support[:, None] + 0.5 * random_features(3 * len(UNEVEN), seed=3).view(-1, 3, D)
    head = HEAD.fit(theta, Support(support, UNEVEN, 4, crops), torch.tensor(0.7, dtype=torch.float64))
    expected = 0.7 * by_definition(theta, support, UNEVEN, 4, queries, crops)
    torch.testing.assert_close(head.logits(queries), expected)
    plain = HEAD.fit(theta, Support(support, UNEVEN, 4), torch.tensor(0.7, dtype=torch.float64))
    assert not torch.allclose(head.logits(queries), plain.logits(queries), atol=0.1)
    assert torch.equal(head.distances(queries), plain.distances(queries))


@pytest.mark.parametrize("labels", [UNEVEN, torch.arange(4).repeat(3), torch.tensor([0, 1, 2, 2, 3])])
def test_leave_one_out_logits_are_those_of_the_head_fitted_without_the_image(labels: Tensor) -> None:
    support, theta = random_features(len(labels)), prior()
    found = HEAD.support_logits(theta, Support(support, labels, 4), 2.0)
    for image, label in enumerate(labels.tolist()):
        others = torch.arange(len(labels)) != image
        if int((labels == label).sum()) == 1:  # not left out
            others[image] = True
        expected = 2 * by_definition(theta, support[others], labels[others], 4, support[image : image + 1])
        torch.testing.assert_close(found[image : image + 1], expected)


def test_leave_one_out_logits_of_single_precision_are_accurate_with_a_weak_prior() -> None:
    """With more dimensions than images, what remains of a deviation without its image is a small difference."""
    features = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 5
    zeros, exponents = torch.zeros(64), {"log_pull": -0.5, "log_weight": 1.0, "log_variance": -6.0}
    theta = {"head.centre": zeros, "head.log_scales": zeros, "head.directions": torch.zeros(1, 64)}
    theta |= {f"head.{name}": torch.tensor(value) for name, value in exponents.items()}
    exact = {name: value.double() for name, value in theta.items()}
    found = HEAD.support_logits(theta, Support(features, labels, 5), 0.2)
    assert found.dtype == torch.float32
    expected = HEAD.support_logits(exact, Support(features.double(), labels, 5), 0.2).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_with_one_image_per_class_only_the_prior_decides_and_the_nearest_direction_wins() -> None:
    support, queries, theta = random_features(5), random_features(40, seed=3), prior()
    theta["head.log_pull"] = torch.tensor(20.0, dtype=torch.float64)  # class means pulled to their mean
    head = HEAD.fit(theta, Support(support, torch.arange(5), 5), torch.tensor(1e9, dtype=torch.float64))
    z, asked = HEAD.compared(theta, support), HEAD.compared(theta, queries)
    directions = (asked - z.mean(0)) @ (z - z.mean(0)).T
    assert torch.equal(head.logits(queries).argmax(1), directions.argmax(1))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.integers(0, 2**31 - 1))
def test_the_order_of_images_does_not_matter(sizes: list[int], seed: int) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    support, theta = random_features(len(labels), seed), prior(seed)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    plain = HEAD.support_logits(theta, Support(support, labels, len(sizes)), 1.0)
    shuffled = HEAD.support_logits(theta, Support(support[order], labels[order], len(sizes)), 1.0)
    torch.testing.assert_close(shuffled, plain[order])


def test_the_gradient_of_leave_one_out_logits_is_that_of_finite_differences() -> None:
    support = random_features(len(UNEVEN)).requires_grad_()
    numbers = [torch.tensor(value, dtype=torch.float64).requires_grad_() for value in (0.8, 2.5, 0.1)]

    def logits(support: Tensor, *prior: Tensor) -> Tensor:
        return leave_one_out_logits(support @ support.T, UNEVEN, 4, prior[0], prior[1], prior[2])

    # Derivatives are hundreds: a small one is a difference of large ones.
    assert torch.autograd.gradcheck(logits, (support, *numbers), atol=1e-3)
    assert torch.autograd.gradgradcheck(logits, (support, *numbers), atol=1e-3)


def test_distances_are_those_to_the_class_means() -> None:
    support, queries, theta = random_features(len(UNEVEN)), random_features(7, seed=2), prior()
    head = HEAD.fit(theta, Support(support, UNEVEN, 4), torch.tensor(1.0, dtype=torch.float64))
    z, asked = HEAD.compared(theta, support), HEAD.compared(theta, queries)
    means = torch.stack([z[label == UNEVEN].mean(0) for label in range(4)])
    torch.testing.assert_close(head.distances(queries), torch.cdist(asked, means).square())


def test_the_inner_steps_move_the_prior_and_the_artifact_equals_the_network() -> None:
    calibration = Calibration(1.3, Novelty(-0.5, 3.0, 0.4, 0.6, relative=0.5))
    config = replace(CONFIG, calibration=calibration)
    parameters = initial_parameters(config, 0)
    assert float(parameters.log_scale.exp()) == pytest.approx(0.2)
    parameters.theta["head.directions"].normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    model = MetaModel(parameters, {"config": config.to_json()})
    rng = np.random.default_rng(0)
    support = rng.integers(0, 256, (7, *config.network.image.shape), dtype=np.uint8)
    labels = np.array([0, 0, 1, 1, 1, 2, 2])
    *_, last = steps(model.learner, parameters, to_float(torch.from_numpy(support)), torch.from_numpy(labels), 3, 2)
    for name in ("centre", "log_scales", "directions", "log_pull", "log_weight", "log_variance"):
        assert not torch.equal(last.theta[f"head.{name}"], parameters.theta[f"head.{name}"]), name
    adapted = adapt(
        model, support, labels, ["a", "b", "c"], steps=2, seed=0, device="cpu", on_step=lambda *_: None, judged=True
    )
    queries = rng.integers(0, 256, (6, *config.network.image.shape), dtype=np.uint8)
    answers = Classifier.from_bytes(adapted.artifact).answers(queries)
    with torch.no_grad():
        network = adapted.network
        features = network.embed(torch.from_numpy(queries))
        expected = network.head.logits(features).softmax(1)
        assert isinstance(network.head, FittedGaussian)
        reference = network.head.reference(network.support, 0.4)
        log_odds = network.head.log_odds(features)
        expected_odds = 3 * (network.head.log_distance(features, 0.4) + 0.5 - 0.5 * reference)
    np.testing.assert_allclose(answers.probabilities, expected.numpy(), atol=1e-4)
    assert answers.novelty is not None
    assert log_odds is not None
    # The head's means are stored with fewer bits than they had when the reference was taken.
    torch.testing.assert_close(log_odds, expected_odds, rtol=0, atol=1e-2)
    np.testing.assert_allclose(answers.novelty, torch.sigmoid(log_odds).numpy(), atol=1e-4)
    assert adapted.leave_one_out_accuracy is not None
