"""A style changes the drawings of a task, all alike."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamanas_core.learning.styles import restyled


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31 - 1), channels=st.sampled_from([1, 3]))
def test_images_stay_images(seed: int, channels: int) -> None:
    images = torch.rand(3, channels, 28, 28, generator=torch.Generator().manual_seed(seed))
    styled = restyled(images, torch.Generator().manual_seed(seed))
    assert styled.shape == images.shape
    assert styled.min() >= 0
    assert styled.max() <= 1
    assert torch.equal(styled, restyled(images, torch.Generator().manual_seed(seed)))


def test_one_style_is_common_to_all_images() -> None:
    drawing = torch.rand(1, 1, 28, 28)
    for seed in range(30):
        styled = restyled(drawing.repeat(2, 1, 1, 1), torch.Generator().manual_seed(seed))
        grain = (styled[0] - styled[1]).abs().mean()
        assert grain < 0.2, "apart from grain, the same drawing stays the same"


def test_most_styles_change_something() -> None:
    drawing = torch.rand(1, 1, 28, 28)
    same = sum(torch.equal(drawing, restyled(drawing, torch.Generator().manual_seed(seed))) for seed in range(50))
    assert same < 15
