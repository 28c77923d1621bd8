"""Symbols as a hand draws them: the same strokes, each time a little different."""

import random
from collections.abc import Sequence

from playwright.sync_api import Locator, Page

Stroke = Sequence[tuple[float, float]]
SYMBOLS: dict[str, Sequence[Stroke]] = {
    "Symbol A": [[(0.2, 0.15), (0.2, 0.85), (0.8, 0.85)], [(0.55, 0.15), (0.8, 0.4)]],
    "Symbol B": [[(0.15, 0.2), (0.85, 0.2)], [(0.5, 0.2), (0.5, 0.85)], [(0.3, 0.85), (0.7, 0.85)]],
    "Symbol C": [[(0.5, 0.12), (0.85, 0.5), (0.5, 0.88), (0.15, 0.5), (0.5, 0.12)]],
}


def draw(page: Page, pad: Locator, symbol: str, seed: int) -> None:
    """Draws it on the pad with the mouse, lifting it after each stroke."""
    hand = random.Random(f"{symbol} {seed}")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    shift = hand.uniform(-0.04, 0.04), hand.uniform(-0.04, 0.04)
    for stroke in SYMBOLS[symbol]:
        places = [
            (
                box["x"] + box["width"] * (x + shift[0] + hand.uniform(-0.025, 0.025)),
                box["y"] + box["height"] * (y + shift[1] + hand.uniform(-0.025, 0.025)),
            )
            for x, y in stroke
        ]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=8)
        page.mouse.up()
