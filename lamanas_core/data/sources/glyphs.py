"""Made-up characters of a few strokes: data of the project's own for tests, examples and trying things out."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 105
Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)


def glyph_class(rng: np.random.Generator) -> list[np.ndarray]:
    """A character: 2 to 4 strokes, each control points (4, 2) of a Bezier curve in 0..1."""
    return [rng.uniform(0.12, 0.88, (4, 2)) for _ in range(rng.integers(2, 5))]


def draw(
    strokes: list[np.ndarray], rng: np.random.Generator, colour: Colour = BLACK, background: Colour = WHITE
) -> Image.Image:
    """One drawing of the character, RGB 105 x 105: control points and place differ a little each time."""
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
    """Colour and background of one drawing: about the class's dark ``ink`` (3,), on any pale colour."""

    def rgb(values: np.ndarray) -> Colour:
        red, green, blue = (int(v) for v in values.clip(0, 255))
        return red, green, blue

    return rgb(ink + rng.normal(0, 15, 3)), rgb(rng.uniform(170, 255, 3))


def write_folders(folder: Path, classes: int, images: int, seed: int, *, colour: bool = False) -> None:
    """``folder/glyph<NNN>/<NN>.png``: ``classes`` characters, ``images`` drawings of each.

    Black on white; with ``colour`` each class has an ink of its own, and each drawing another pale background.
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
