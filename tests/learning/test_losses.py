"""The learned loss is invariant to the order of classes, and its residual adds cross-entropy."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lamanas_core.config import NetworkConfig
from lamanas_core.heads.base import Support
from lamanas_core.heads.prototypes import PrototypeHead, leave_one_out_logits
from lamanas_core.losses.invariant import ALONE, LearnedLoss


@settings(deadline=None)
@given(seed=st.integers(0, 1000), ways=st.integers(2, 9), kind=st.sampled_from(["fnn", "lstm", "cross_entropy"]))
def test_the_order_of_classes_does_not_matter(seed: int, ways: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    loss = LearnedLoss(kind, True, 4, generator)  # type: ignore[arg-type]
    scores = torch.randn(11, ways, generator=generator)
    labels = torch.randint(ways, (11,), generator=generator)
    order = torch.randperm(ways, generator=generator)
    renamed = torch.argsort(order)[labels]
    torch.testing.assert_close(
        loss(scores, labels, 0.5, None)[0], loss(scores[:, order], renamed, 0.5, None)[0], rtol=1e-4, atol=1e-5
    )


def test_cross_entropy_is_cross_entropy() -> None:
    scores, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4
    value, state = LearnedLoss("cross_entropy", True, 4)(scores, labels, 0.0, None)
    torch.testing.assert_close(value, F.cross_entropy(scores, labels))
    assert state is None


@pytest.mark.parametrize("kind", ["fnn", "lstm"])
def test_the_residual_adds_cross_entropy_before_the_elu(kind: str) -> None:
    scores, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    loss = LearnedLoss(kind, True, 4, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    with torch.no_grad():
        loss.output.weight.zero_()
    torch.testing.assert_close(loss(scores, labels, 0.0, None)[0], F.cross_entropy(scores, labels))
    loss.residual = False
    assert loss(scores, labels, 0.0, None)[0].item() == 0


def test_the_only_image_of_its_class_initially_has_a_small_strength() -> None:
    scores, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1, 2])
    loss = LearnedLoss("fnn", True, 4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss.output.weight.zero_()
    strength = torch.tensor([1.0, 1.0, math.exp(ALONE), math.exp(ALONE)])
    expected = (strength * F.cross_entropy(scores, labels, reduction="none")).mean()
    torch.testing.assert_close(loss(scores, labels, 0.0, None)[0], expected)


def test_the_state_of_the_lstm_carries_over_between_steps() -> None:
    scores, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4
    loss = LearnedLoss("lstm", True, 4, torch.Generator().manual_seed(0))
    first, state = loss(scores, labels, 0.0, None)
    second, _ = loss(scores, labels, 0.0, state)
    assert first.item() != second.item()


def test_a_feed_forward_loss_has_no_state() -> None:
    scores, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4
    loss = LearnedLoss("fnn", True, 4, torch.Generator().manual_seed(0))
    first, state = loss(scores, labels, 0.0, None)
    assert state is None
    assert torch.equal(loss(scores, labels, 0.0, state)[0], first)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), shots=st.lists(st.integers(1, 4), min_size=2, max_size=5))
def test_leave_one_out_equals_prototypes_computed_without_each_image(seed: int, shots: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(shots)), torch.tensor(shots))
    features = torch.randn(len(labels), 6, generator=generator, dtype=torch.float64)
    result = leave_one_out_logits(features, labels, len(shots), 3.0)
    for i, label in enumerate(labels.tolist()):
        others = torch.arange(len(labels)) != i
        rest = others if shots[label] > 1 else torch.ones_like(others)
        scale = torch.tensor(3.0, dtype=torch.float64)
        head = PrototypeHead(NetworkConfig()).fit({}, Support(features[rest], labels[rest], len(shots)), scale)
        expected = head.logits(features[i : i + 1])[0]
        torch.testing.assert_close(result[i] - result[i].mean(), expected - expected.mean())
