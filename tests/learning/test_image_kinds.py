"""Drawings are told from photos."""

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from lamanas_core.data.episodes import sample_episode
from lamanas_core.data.folders import load_all
from lamanas_core.data.sources import digits, typefaces
from lamanas_core.data.sources.glyphs import draw, glyph_class, png
from lamanas_core.image_kinds import AT_A_TIME, JUDGED, MOST_JUDGED, _windows, judge, sample
from lamanas_core.images import UInt8Array, load
from tests.conftest import ROOT

PHOTOS = sorted((ROOT.parent / "shared" / "photos").glob("*.zip"))
SIDE = 240
RNG = np.random.default_rng(0)


def seen(*images: Image.Image) -> UInt8Array:
    return np.stack([load(png(image), JUDGED, max_pixels=1_000_000) for image in images])


def strokes() -> Image.Image:
    """A character, dark on white."""
    return draw(glyph_class(RNG), RNG).convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def on_shaded_paper() -> Image.Image:
    """A character on a sheet that lies in the light of a lamp, photographed with noise."""
    ink = 1 - np.asarray(strokes(), np.float32)[..., None] / 255
    light = np.linspace(1.1, 0.65, SIDE)[:, None, None]
    paper = np.array([215, 208, 190]) * (1 - ink) + np.array([40, 45, 110]) * ink
    photo = paper * light + RNG.normal(0, 4, (SIDE, SIDE, 3))
    return Image.fromarray(photo.clip(0, 255).astype(np.uint8))


def thing_on_white(mode: str = "RGB") -> Image.Image:
    """A rough thing, cut out."""
    tones = RNG.integers(60, 250, (8, 8, 3), dtype=np.uint8)
    rough = Image.fromarray(tones).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert(mode)
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).ellipse((25, 15, 215, 225), fill=255)
    return Image.composite(rough, Image.new(mode, (SIDE, SIDE), "white"), mask)


def icon() -> Image.Image:
    """A flat coloured sign on white."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(image).ellipse((60, 60, 180, 180), fill=tuple(RNG.permutation([220, 40, 30]).tolist()))
    return image


def texture() -> Image.Image:
    """A surface with a faint grain and no colours."""
    grain = RNG.normal(128, 60, (SIDE, SIDE)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(grain).filter(ImageFilter.GaussianBlur(3))


def negative() -> Image.Image:
    return strokes().point(lambda value: 255 - value)


@pytest.mark.parametrize("make", [strokes, negative, on_shaded_paper])
def test_strokes_on_a_ground_are_drawings(make: Callable[[], Image.Image]) -> None:
    found = judge(seen(*(make() for _ in range(5))))
    assert (found.kind, found.reason) == ("drawings", "the images are strokes on a plain ground")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (thing_on_white, "the images have half-tones throughout"),
        (lambda: thing_on_white("L"), "the images have half-tones throughout"),
        (icon, "the images are coloured"),
        (texture, "the images have no strokes"),
    ],
)
def test_what_is_no_drawing_is_a_photo(make: Callable[[], Image.Image], reason: str) -> None:
    found = judge(seen(*(make() for _ in range(5))))
    assert (found.kind, found.reason) == ("photos", reason)


@pytest.mark.parametrize("source", [digits, typefaces])
def test_digits_and_typefaces_are_drawings(source: ModuleType, tmp_path: Path) -> None:
    source.write_folders(tmp_path)
    classes, generator = load_all(tmp_path, JUDGED), torch.Generator().manual_seed(0)
    for _ in range(20):
        assert judge(sample_episode(classes, 5, 1, 1, generator).support.numpy()).kind == "drawings"


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_photos_of_every_set_are_photos(path: Path) -> None:
    rng = random.Random(0)
    with zipfile.ZipFile(path) as archive:
        classes: dict[str, list[str]] = {}
        for name in archive.namelist():
            if name.lower().endswith((".jpg", ".png")):
                classes.setdefault(name.rsplit("/", 1)[0], []).append(name)
        for _ in range(4):
            names = [name for label in rng.sample(sorted(classes), 5) for name in rng.sample(classes[label], 5)]
            images = np.stack([load(archive.read(name), JUDGED, max_pixels=1_000_000) for name in names])
            assert judge(images).kind == "photos"


def test_blank_images_decide_nothing() -> None:
    blank = np.full((7, *JUDGED.shape), 250, np.uint8)
    assert judge(blank).kind == "drawings"
    assert judge(np.concatenate([seen(thing_on_white(), thing_on_white()), blank])).kind == "photos"
    assert judge(np.concatenate([seen(strokes(), strokes()), blank])).kind == "drawings"


def test_images_of_all_groups_are_judged() -> None:
    few, many = seen(*(strokes() for _ in range(AT_A_TIME))), seen(*(icon() for _ in range(AT_A_TIME)))
    assert judge(few).kind == "drawings"
    assert judge(np.concatenate([few, many])).kind == "photos"


@given(width=st.integers(1, 20), rows=st.integers(20, 30), seed=st.integers(0, 99))
@pytest.mark.parametrize("ufunc", [np.maximum, np.add])
def test_windows_are_those_of_a_loop(ufunc: np.ufunc, width: int, rows: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 100, (rows, 3)).astype(np.float32)
    found = _windows(ufunc, values, width)
    assert np.array_equal(found, [ufunc.reduce(values[row : row + width]) for row in range(rows - width + 1)])


def test_the_first_images_of_each_class_are_judged() -> None:
    assert sample([0, 0, 0, 1, 1]) == [0, 1, 2, 3, 4]
    assert sample([1, 0] * 3) == [0, 1, 2, 3, 4, 5]
    labels = [label for label in range(20) for _ in range(50)]
    rows = sample(labels)
    assert len(rows) == len(set(rows)) == MOST_JUDGED
    assert rows == sorted(rows)
    assert [labels.index(label) in rows for label in range(20)] == [True] * 20
    assert sum(row % 50 == 1 for row in rows) == 12
