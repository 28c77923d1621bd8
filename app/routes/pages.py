"""The playground at /, the API reference at /docs, their static files, and the example tasks."""

import base64
from functools import cache
from pathlib import Path

import numpy as np
from fastapi import APIRouter
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.openapi import problems
from app.schemas.responses import Example, ExampleImage, Examples
from lamanas_core.data.sources import glyphs

FOLDER = Path(__file__).resolve().parent.parent / "static"
THINGS = FOLDER.parent / "examples"
# Browsers revalidate each file (304 if it is unchanged), so that no page mixes modules of two versions.
CACHE = {"Cache-Control": "no-cache"}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> FileResponse:
    return FileResponse(FOLDER / "index.html", headers=CACHE)


@router.get("/docs")
async def reference() -> FileResponse:
    return FileResponse(FOLDER / "docs.html", headers=CACHE)


class Static(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(CACHE)
        return response


examples_router = APIRouter(tags=["examples"])

# Title, classes, support images of each class; the seed is the index in this list.
TASKS = (
    ("Three symbols, three drawings each", 3, 3),
    ("Five symbols, one drawing each", 5, 1),
    ("Ten symbols, five drawings each", 10, 5),
)
QUERIES_PER_CLASS = 2
PHOTOS = "Three things, three photos each"


@examples_router.get("/examples", summary="Example tasks", responses=problems())
async def examples() -> Examples:
    return _examples()


@cache
def _examples() -> Examples:
    return Examples(examples=[*(_drawings(seed, *task) for seed, task in enumerate(TASKS)), _photos()])


def _drawings(seed: int, title: str, classes: int, shots: int) -> Example:
    rng = np.random.default_rng(seed)
    support, queries = [], []
    for number in range(classes):
        strokes = glyphs.glyph_class(rng)
        drawn = [_draw(f"glyph {number + 1}", strokes, rng) for _ in range(shots + QUERIES_PER_CLASS)]
        support += drawn[:shots]
        queries += drawn[shots:]
    return Example(title=title, kind="drawings", support=support, queries=queries)


def _photos() -> Example:
    support, queries = [], []
    for folder in sorted(THINGS.iterdir()):
        files = sorted(folder.iterdir())
        images = [ExampleImage(label=folder.name, image=base64.b64encode(file.read_bytes()).decode()) for file in files]
        support += images[:-QUERIES_PER_CLASS]
        queries += images[-QUERIES_PER_CLASS:]
    return Example(title=PHOTOS, kind="photos", support=support, queries=queries)


def _draw(label: str, strokes: list[np.ndarray], rng: np.random.Generator) -> ExampleImage:
    return ExampleImage(label=label, image=base64.b64encode(glyphs.png(glyphs.draw(strokes, rng))).decode())
