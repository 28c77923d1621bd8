"""A style changes all images of a task in the same way."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamanas_core.data.augment import _retaken, restyled
from lamanas_core.image_spec import ImageSpec
from lamanas_core.recipe import Styles

DRAWINGS = ImageSpec()
PHOTOS = ImageSpec(channels=3, normalise_polarity=False)
SPECS = [DRAWINGS, ImageSpec(channels=3), PHOTOS]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31 - 1), spec=st.sampled_from(SPECS))
def test_styled_images_keep_shape_and_range(seed: int, spec: ImageSpec) -> None:
    images = torch.rand(3, *spec.shape, generator=torch.Generator().manual_seed(seed))
    styled = restyled(images, spec, Styles(), torch.Generator().manual_seed(seed))
    assert styled.shape == images.shape
    assert styled.min() >= 0
    assert styled.max() <= 1
    assert torch.equal(styled, restyled(images, spec, Styles(), torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("spec", SPECS)
def test_a_style_is_common_to_all_images(spec: ImageSpec) -> None:
    image = torch.rand(1, *spec.shape)
    for seed in range(30):
        styled = restyled(image.repeat(2, 1, 1, 1), spec, Styles(), torch.Generator().manual_seed(seed))
        grain = (styled[0] - styled[1]).abs().mean()
        assert grain < 0.2, "apart from grain, the same image stays the same"


@pytest.mark.parametrize("spec", SPECS)
def test_most_styles_change_something(spec: ImageSpec) -> None:
    image = torch.rand(1, *spec.shape)
    same = sum(
        torch.equal(image, restyled(image, spec, Styles(), torch.Generator().manual_seed(seed))) for seed in range(50)
    )
    assert same < 15


NOTHING = Styles(coarse=0.0, coloured_light=0.0, exposure=0.0, false_colours=0.0, grey=0.0)


def test_a_style_of_photos_does_not_treat_dark_or_bright_areas_as_ink() -> None:
    """A dark spot on a pale background neither grows nor vanishes, as it would with a change of the pen."""
    photo = torch.full((1, *PHOTOS.shape), 0.9)
    photo[:, :, 8:20, 8:20] = 0.2
    for seed in range(30):
        styled = restyled(photo, PHOTOS, replace(Styles(), false_colours=0.0), torch.Generator().manual_seed(seed))
        halfway = (styled[:, :, 14, 14] + styled[:, :, 0, 0])[..., None, None] / 2
        # 36 at the lowest resolution; a thicker pen would remove 44.
        assert ((styled < halfway).sum((2, 3)) - 144).abs().max() <= 36


def test_false_colours_are_the_channels_in_another_order_and_partly_inverted() -> None:
    recipe = replace(NOTHING, false_colours=1.0)
    photo = torch.tensor([0.1, 0.2, 0.4])[None, :, None, None].expand(2, 3, 4, 4)
    found = set()
    for seed in range(600):
        values = _retaken(photo, recipe, torch.Generator().manual_seed(seed))[:, :, 0, 0]
        assert torch.equal(values[0], values[1])
        found.add(tuple(round(value, 3) for value in values[0].tolist()))
    orders = set(permutations((0.1, 0.2, 0.4)))
    assert {tuple(round(min(value, 1 - value), 3) for value in one) for one in found} == orders
    assert len(found) == 6 * 8


def test_a_grey_style_has_the_mean_of_the_channels_in_each() -> None:
    photo = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    styled = _retaken(photo, replace(NOTHING, grey=1.0), torch.Generator())
    torch.testing.assert_close(styled, photo.mean(1, keepdim=True).expand(1, 3, 4, 4))


def test_coloured_light_multiplies_each_channel_by_its_own_factor() -> None:
    recipe = replace(NOTHING, coloured_light=1.0, darkest_light=0.5)
    white = torch.ones(1, 3, 4, 4)
    lights = [_retaken(white, recipe, torch.Generator().manual_seed(seed))[0, :, 0, 0] for seed in range(50)]
    factors = torch.stack(lights)
    assert 0.5 <= float(factors.min()) < 0.55
    assert 0.95 < float(factors.max()) < 1
    assert all(len(set(light.tolist())) == 3 for light in lights)
