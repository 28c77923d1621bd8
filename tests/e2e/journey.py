"""What a user does on the page, in the tests' own words."""

from collections.abc import Callable, Sequence
from typing import Any

import httpx
import numpy as np
from playwright.sync_api import Locator, Page, Route, expect

from lamanas_core.data.sources import glyphs
from tests.conftest import Service
from tests.e2e.strokes import SYMBOLS, Draw, draw


def pngs(classes: int, images: int, seed: int = 5) -> list[list[bytes]]:
    """``images`` drawings of each of ``classes`` made-up characters, as PNG files."""
    rng = np.random.default_rng(seed)
    characters = [glyphs.glyph_class(rng) for _ in range(classes)]
    return [[glyphs.png(glyphs.draw(strokes, rng)) for _ in range(images)] for strokes in characters]


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def thumb(page: Page, label: str, number: int) -> Locator:
    """An image of a class, counted from 1."""
    return button(page, f"{label}, image {number}")


def group(page: Page, label: str) -> Locator:
    """All that belongs to a class."""
    return page.get_by_role("group", name=label, exact=True)


def verdict(page: Page) -> Locator:
    return page.locator(".verdict")


def answers(page: Page) -> Locator:
    """What was said of each file that was asked about, in their order."""
    return page.locator(".grid li strong")


def draw_task(page: Page, shots: int, draw: Draw = draw) -> None:
    """Draws each symbol so many times, each into the class of its name."""
    pad = page.get_by_label("Drawing pad")
    for symbol in SYMBOLS:
        button(page, f"Draw {symbol}").click()
        for shot in range(shots):
            draw(page, pad, symbol, shot)
            button(page, f"Add to {symbol}").click()
            expect(thumb(page, symbol, shot + 1)).to_be_visible()


def adapt(page: Page) -> None:
    """Sends the task and waits until it can be asked."""
    button(page, "Adapt").click()
    until_ready(page)


def load_example(page: Page) -> None:
    """Three symbols with three drawings each, and two more of each to classify."""
    page.get_by_text("Or try an example").click()
    button(page, "Three symbols, three drawings each").click()
    expect(thumb(page, "glyph 3", 3)).to_be_visible()


def answering_with(**values: Any) -> Callable[[Route], None]:
    """Answers as the service does, but for these values."""

    def answer(route: Route) -> None:
        found = route.fetch()
        route.fulfill(response=found, json=found.json() | values)

    return answer


def hide(page: Page, *, hidden: bool) -> None:
    """Tells the page that its tab is hidden, or seen again."""
    page.evaluate(
        "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def until_ready(page: Page) -> None:
    expect(page.get_by_label("Query pad")).to_be_visible()


def open_episode(page: Page, service: Service, id: str) -> None:
    """By its address, as soon as the page knows who is there."""
    expect(button(page, "Adapt")).to_be_visible()
    page.goto(f"{service.url}/#/episodes/{id}")


def made_episode(
    service: Service, images: list[list[bytes]], *, unlabelled: Sequence[bytes] = (), **fields: Any
) -> str:
    """The id of a finished episode of these classes, made beside the page."""
    files = [("images", ("image.png", data)) for each in images for data in each]
    files += [("unlabelled", ("image.png", data)) for data in unlabelled]
    labels = [f"class {number}" for number, each in enumerate(images) for _ in each]
    headers = service.headers | {"Prefer": "wait=60"}
    data = {"labels": labels} | fields
    answer = httpx.post(f"{service.url}/episodes", headers=headers, files=files, data=data, timeout=90)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def until_asked(page: Page) -> None:
    """Waits until the page asks for an image to classify."""
    expect(page.get_by_role("heading", name="Ask", exact=True)).to_be_visible()
