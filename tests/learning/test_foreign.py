"""Warnings about images that the meta-model can learn little from."""

import random
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from lamanas_core.adapt.foreign import warnings_of
from lamanas_core.data.episodes import sample_episode
from lamanas_core.data.folders import load_all
from lamanas_core.data.sources import digits, typefaces
from lamanas_core.data.sources.glyphs import png
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import load
from tests.conftest import ROOT
from tests.learning.helpers import glyph_support

PHOTOS = sorted((ROOT.parent / "shared" / "photos").glob("*.zip"))
DRAWINGS, COLOUR = ImageSpec(), ImageSpec(size=84, channels=3, normalise_polarity=False)
CARD = {"domain": {"name": "drawings of a test", "ink": [0.2, 0.6]}}


def told(support: np.ndarray, labels: np.ndarray, classes: str = "abcde") -> tuple[str, ...]:
    return warnings_of(DRAWINGS, CARD, support, labels, list(classes))


def preprocessed(image: Image.Image) -> np.ndarray:
    return load(png(image), DRAWINGS, max_pixels=1_000_000)


@pytest.mark.parametrize("seed", range(5))
def test_drawings_give_no_warning(seed: int) -> None:
    assert told(*glyph_support(5, [5] * 5, seed=seed)) == ()


@pytest.mark.parametrize("source", [digits, typefaces])
def test_digits_and_typefaces_give_no_warning(source: ModuleType, tmp_path: Path) -> None:
    source.write_folders(tmp_path)
    classes, generator = load_all(tmp_path, DRAWINGS), torch.Generator().manual_seed(0)
    for _ in range(50):
        episode = sample_episode(classes, 5, 5, 1, generator)
        assert told(episode.support.numpy(), episode.support_labels.numpy()) == ()


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_photos_are_told_from_drawings(path: Path) -> None:
    rng, found = random.Random(0), []
    with zipfile.ZipFile(path) as archive:
        classes: dict[str, list[str]] = {}
        for name in archive.namelist():
            if name.lower().endswith((".jpg", ".png")):
                classes.setdefault(name.rsplit("/", 1)[0], []).append(name)
        for _ in range(4):
            names = [name for label in rng.sample(sorted(classes), 5) for name in rng.sample(classes[label], 5)]
            images = np.stack([load(archive.read(name), DRAWINGS, max_pixels=1_000_000) for name in names])
            found.append(told(images, np.arange(5).repeat(5)))
    # A texture can be so fine that it is blank once it has been shrunk, of which there is another warning.
    assert all("look like photos" in one[-1] for one in found)
    assert "drawings of a test" in found[0][-1]


def photos_on_white(count: int) -> np.ndarray:
    rng, images = np.random.default_rng(0), []
    for _ in range(count):
        rough = Image.fromarray(rng.integers(60, 220, (12, 12), dtype=np.uint8)).resize(
            (100, 100), Image.Resampling.BICUBIC
        )
        mask = Image.new("L", (100, 100), 0)
        ImageDraw.Draw(mask).ellipse((20, 15, 80, 85), fill=255)
        images.append(preprocessed(Image.composite(rough, Image.new("L", (100, 100), 255), mask)))
    return np.stack(images)


def test_photos_on_white_ground_are_told_from_drawings() -> None:
    (warning,) = told(photos_on_white(10), np.arange(10) // 2)
    assert "look like photos" in warning


def test_photos_are_told_from_drawings_among_blank_images() -> None:
    images = np.concatenate([photos_on_white(3), np.zeros((7, 1, 28, 28), np.uint8)])
    blank, photos = told(images, np.arange(10) % 2, "ab")
    assert blank.startswith("7 of the images are blank")
    assert "look like photos" in photos


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
    noise = np.random.default_rng(0).integers(0, 256, (4, 1, 28, 28), dtype=np.uint8)
    assert warnings_of(DRAWINGS, {}, noise, np.array([0, 0, 1, 1]), ["a", "b"]) == ()
