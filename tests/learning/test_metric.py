"""The space of the Gaussian head: what is computed of it from data sets, and its gradient."""

import pytest
import torch
from torch import Tensor

from lamanas_core.heads.metric import DIRECTIONS, Metric, centre_and_directions

D = 24
CLASSES, EACH = 12, 200


def within_classes(x: Tensor, labels: Tensor) -> Tensor:
    """The variance within classes along each axis, (d,)."""
    return torch.stack([x[labels == label].var(0) for label in range(CLASSES)]).mean(0)


def data_set(seed: int, *, turned: int, mean: float = 0.0, count: int = EACH) -> tuple[Tensor, Tensor]:
    """Classes far apart, whose images differ most along the axis ``turned``; features (n, D) and labels."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat_interleave(count)
    deviations = 0.1 * torch.randn(len(labels), D, generator=source)
    deviations[:, turned] *= 5
    return mean + torch.randn(CLASSES, D, generator=source)[labels] + deviations, labels


def test_directions_in_which_images_of_a_class_differ_are_shortened_half_of_the_way() -> None:
    features, labels = data_set(0, turned=3)
    metric = Metric(*_of([(features, labels)]))
    of_unit_length = torch.nn.functional.normalize(features - metric.centre, dim=1)
    before, after = within_classes(of_unit_length, labels), within_classes(metric(features), labels)
    shares = before / before.sum()
    shrunk = (shares + 1 / D) / 2
    expected = shares[3] / shrunk[3] * shrunk.median() / shares.median()
    assert before[3] / before.median() > 15
    assert float(after[3] / after.median()) == pytest.approx(float(expected), rel=0.2)
    assert expected < 3


def test_all_data_sets_count_the_same_however_many_images_they_have() -> None:
    few, many = data_set(0, turned=3, mean=1.0, count=2), data_set(1, turned=7, mean=-1.0, count=400)
    centre, directions = centre_and_directions([few, many])
    torch.testing.assert_close(centre, (few[0].mean(0) + many[0].mean(0)) / 2)
    unusual = directions.square().sum(0)
    assert float(unusual[3]) == pytest.approx(float(unusual[7]), rel=0.2)


def test_without_two_images_of_a_class_nothing_is_shortened() -> None:
    features = torch.randn(5, D, generator=torch.Generator().manual_seed(0))
    centre, directions = centre_and_directions([(features, torch.arange(5))])
    torch.testing.assert_close(centre, features.mean(0))
    assert not directions.any()


def test_fewer_dimensions_than_directions_leave_the_others_empty() -> None:
    features, labels = data_set(0, turned=0)
    _, directions = centre_and_directions([(features[:, :4], labels)])
    assert directions.shape == (DIRECTIONS, 4)
    assert not directions[3:].any()


def test_the_gradient_of_the_metric_is_that_of_finite_differences() -> None:
    source = torch.Generator().manual_seed(0)
    shapes = [(5, 6), (6,), (6,), (2, 6)]
    values = [0.5 * torch.randn(shape, generator=source, dtype=torch.float64) for shape in shapes]

    def z(features: Tensor, *metric: Tensor) -> Tensor:
        return Metric(*metric)(features)

    assert torch.autograd.gradcheck(z, tuple(value.requires_grad_() for value in values))


def _of(sets: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    centre, directions = centre_and_directions(sets)
    return centre, torch.zeros(D), directions
