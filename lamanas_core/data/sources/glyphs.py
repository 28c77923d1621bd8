"""Synthetic glyphs of a few strokes: a data set for tests, examples and experiments that needs no download."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 105
Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)


def glyph_class(rng: np.random.Generator) -> list[np.ndarray]:
    """A random glyph: 2 to 4 strokes, each the control points (4, 2), in 0..1, of a cubic Bézier curve."""
    return [rng.uniform(0.12, 0.88, (4, 2)) for _ in range(rng.integers(2, 5))]


def draw(
    strokes: list[np.ndarray], rng: np.random.Generator, colour: Colour = BLACK, background: Colour = WHITE
) -> Image.Image:
    """A drawing of the glyph, RGB 105 x 105, with small random changes of its control points and position."""
    image = Image.new("RGB", (SIDE, SIDE), background)
    pen = ImageDraw.Draw(image)
    shift = rng.normal(0, 0.025, 2)
    t = np.linspace(0, 1, 24)[:, None]
    for stroke in strokes:
        a, b, c, d = stroke + rng.normal(0, 0.02, (4, 2)) + shift
        curve = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
        pen.line([(float(x) * SIDE, float(y) * SIDE) for x, y in curve], fill=colour, width=3, joint="curve")
    return image


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def colours(ink: np.ndarray, rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Stroke and background colour of a drawing: close to the class's dark ``ink`` (3,), 0..255, on a pale colour."""

    def rgb(values: np.ndarray) -> Colour:
        red, green, blue = (int(v) for v in values.clip(0, 255))
        return red, green, blue

    return rgb(ink + rng.normal(0, 15, 3)), rgb(rng.uniform(170, 255, 3))


def write_folders(folder: Path, classes: int, images: int, seed: int, *, colour: bool = False) -> None:
    """Write ``folder/glyph<NNN>/<NN>.png``: ``classes`` glyphs, ``images`` drawings of each, from ``seed``.

    Black on white; with ``colour`` each class has its own dark colour, and each drawing a random pale background.
    """
    rng = np.random.default_rng(seed)
    for number in range(classes):
        strokes = glyph_class(rng)
        ink = rng.uniform(0, 150, 3) if colour else None
        target = folder / f"glyph{number:03d}"
        target.mkdir(parents=True, exist_ok=True)
        for index in range(images):
            paint = (BLACK, WHITE) if ink is None else colours(ink, rng)
            (target / f"{index:02d}.png").write_bytes(png(draw(strokes, rng, *paint)))
