"""What a user does on the page, in the tests' own words."""

from typing import Any

import httpx
import numpy as np
from playwright.sync_api import Locator, Page, expect

from lamanas_core import glyphs
from tests.conftest import Service
from tests.e2e.strokes import SYMBOLS, draw


def pngs(classes: int, images: int, seed: int = 5) -> list[list[bytes]]:
    """``images`` drawings of each of ``classes`` made-up characters, as PNG files."""
    rng = np.random.default_rng(seed)
    characters = [glyphs.glyph_class(rng) for _ in range(classes)]
    return [[glyphs.png(glyphs.draw(strokes, rng)) for _ in range(images)] for strokes in characters]


def upload(name: str, data: bytes) -> Any:
    """A file for ``set_input_files``."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def draw_task(page: Page, shots: int) -> None:
    """Draws each symbol so many times, each into the class of its name."""
    pad = page.get_by_label("Drawing pad")
    for symbol in SYMBOLS:
        button(page, f"Draw {symbol}").click()
        for shot in range(shots):
            draw(page, pad, symbol, shot)
            button(page, f"Add to {symbol}").click()
            expect(page.get_by_label(f"Remove {symbol}, image {shot + 1}")).to_be_visible()


def adapt(page: Page) -> None:
    """Sends the task and waits until it can be asked."""
    button(page, "Adapt").click()
    until_ready(page)


def until_ready(page: Page) -> None:
    expect(page.get_by_label("Query pad")).to_be_visible()


def made_episode(service: Service, images: list[list[bytes]]) -> str:
    """The id of a finished episode of these classes, made beside the page."""
    files = [("images", ("image.png", data)) for each in images for data in each]
    labels = [f"class {number}" for number, each in enumerate(images) for _ in each]
    headers = service.headers | {"Prefer": "wait=60"}
    answer = httpx.post(f"{service.url}/episodes", headers=headers, files=files, data={"labels": labels}, timeout=90)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])
