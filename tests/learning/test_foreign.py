"""Warnings about images that the meta-model can learn little from."""

import numpy as np
import pytest

from lamanas_core.adapt.foreign import warnings_of
from lamanas_core.image_spec import ImageSpec
from tests.learning.helpers import glyph_support

DRAWINGS, COLOUR = ImageSpec(), ImageSpec(size=84, channels=3, normalise_polarity=False)
CARD = {"domain": {"name": "drawings of a test", "ink": [0.2, 0.6]}}


def told(support: np.ndarray, labels: np.ndarray, classes: str = "abcde") -> tuple[str, ...]:
    return warnings_of(DRAWINGS, CARD, support, labels, list(classes))


@pytest.mark.parametrize("seed", range(5))
def test_drawings_give_no_warning(seed: int) -> None:
    assert told(*glyph_support(5, [5] * 5, seed=seed)) == ()


def test_a_class_of_blank_images_is_named() -> None:
    support, labels = glyph_support(3, [2] * 3, seed=3)
    support[2:4] = 0
    assert told(support, labels, "abc") == (
        'All images of "b" are blank, so this class cannot be told apart. Send other images for it.',
    )
    (warning,) = told(np.zeros_like(support), labels, "abc")
    assert '"a", "b", "c"' in warning


def test_single_blank_images_are_counted() -> None:
    support, labels = glyph_support(3, [2] * 3, seed=3)
    support[[1, 5]] = 7  # an even grey
    (warning,) = told(support, labels, "abc")
    assert warning == '2 of the images are blank, for example in "a". Remove or replace them.'


def test_photos_of_another_brightness_than_those_of_training_are_told() -> None:
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (4, 3, 84, 84), dtype=np.uint8)
    labels = np.array([0, 0, 1, 1])
    assert warnings_of(COLOUR, CARD, photos, labels, ["a", "b"]) == ()
    (warning,) = warnings_of(COLOUR, CARD, photos // 8, labels, ["a", "b"])
    assert "mean brightness is 0.06, outside its usual range of 0.20 to 0.60" in warning


def test_a_model_whose_card_says_nothing_of_its_images_warns_of_blanks_only() -> None:
    dark = np.random.default_rng(0).integers(0, 20, (4, 3, 84, 84), dtype=np.uint8)
    assert warnings_of(COLOUR, {}, dark, np.array([0, 0, 1, 1]), ["a", "b"]) == ()
