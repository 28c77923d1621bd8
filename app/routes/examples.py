"""Tasks to try: made-up characters that no model has seen, drawn by the generator in the core."""

import base64
from functools import cache

import numpy as np
from fastapi import APIRouter

from app.openapi import problems
from app.schemas import Example, ExampleImage, Examples
from lamanas_core.data.sources import glyphs

router = APIRouter(tags=["examples"])

# Title, classes, images of each class to learn from; the seed is the place in this list.
TASKS = (
    ("Three symbols, three drawings each", 3, 3),
    ("Five symbols, one drawing each", 5, 1),
    ("Ten symbols, five drawings each", 10, 5),
)
QUERIES_PER_CLASS = 2


@router.get("/examples", summary="Tasks to try", responses=problems())
async def examples() -> Examples:
    return _examples()


@cache
def _examples() -> Examples:
    return Examples(examples=[_example(seed, *task) for seed, task in enumerate(TASKS)])


def _example(seed: int, title: str, classes: int, shots: int) -> Example:
    rng = np.random.default_rng(seed)
    support, queries = [], []
    for number in range(classes):
        strokes = glyphs.glyph_class(rng)
        drawn = [_drawn(f"glyph {number + 1}", strokes, rng) for _ in range(shots + QUERIES_PER_CLASS)]
        support += drawn[:shots]
        queries += drawn[shots:]
    return Example(title=title, support=support, queries=queries)


def _drawn(label: str, strokes: list[np.ndarray], rng: np.random.Generator) -> ExampleImage:
    return ExampleImage(label=label, image=base64.b64encode(glyphs.png(glyphs.draw(strokes, rng))).decode())
