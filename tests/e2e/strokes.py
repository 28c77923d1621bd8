"""Symbols as a hand draws them: the same strokes, each time a little different."""

import itertools
import random
from collections.abc import Callable, Sequence

from playwright.sync_api import Locator, Page

Place = tuple[float, float]
Draw = Callable[[Page, Locator, str, int], None]
SYMBOLS: dict[str, Sequence[Sequence[Place]]] = {
    "Symbol A": [[(0.2, 0.15), (0.2, 0.85), (0.8, 0.85)], [(0.55, 0.15), (0.8, 0.4)]],
    "Symbol B": [[(0.15, 0.2), (0.85, 0.2)], [(0.5, 0.2), (0.5, 0.85)], [(0.3, 0.85), (0.7, 0.85)]],
    "Symbol C": [[(0.5, 0.12), (0.85, 0.5), (0.5, 0.88), (0.15, 0.5), (0.5, 0.12)]],
}


def strokes(pad: Locator, symbol: str, seed: int) -> list[list[Place]]:
    """Where on the screen the strokes go."""
    hand = random.Random(f"{symbol} {seed}")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    shift = hand.uniform(-0.04, 0.04), hand.uniform(-0.04, 0.04)
    return [
        [
            (
                box["x"] + box["width"] * (x + shift[0] + hand.uniform(-0.025, 0.025)),
                box["y"] + box["height"] * (y + shift[1] + hand.uniform(-0.025, 0.025)),
            )
            for x, y in stroke
        ]
        for stroke in SYMBOLS[symbol]
    ]


def draw(page: Page, pad: Locator, symbol: str, seed: int) -> None:
    """Draws it on the pad with the mouse, lifting it after each stroke."""
    for stroke in strokes(pad, symbol, seed):
        page.mouse.move(*stroke[0])
        page.mouse.down()
        for place in stroke[1:]:
            page.mouse.move(*place, steps=8)
        page.mouse.up()


def scribble(page: Page, pad: Locator) -> None:
    """Fills the pad's middle with a zigzag, which is no symbol."""
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    for turn in range(1, 25):
        x, y = 0.2 + 0.6 * (turn % 2), 0.2 + 0.6 * turn / 24
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
    page.mouse.up()


def draw_with_a_finger(page: Page, pad: Locator, symbol: str, seed: int) -> None:
    """The same by touch, as the screen reports it."""
    screen = page.context.new_cdp_session(page)

    def touch(kind: str, places: Sequence[Place]) -> None:
        points = [{"x": x, "y": y} for x, y in places]
        screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    for stroke in strokes(pad, symbol, seed):
        touch("touchStart", stroke[:1])
        for before, after in itertools.pairwise(stroke):
            for step in range(1, 9):
                touch(
                    "touchMove",
                    [(before[0] + (after[0] - before[0]) * step / 8, before[1] + (after[1] - before[1]) * step / 8)],
                )
        touch("touchEnd", [])
    screen.detach()


def draw_with_a_pen(page: Page, pad: Locator, symbol: str, seed: int) -> None:
    """The same by a pen on the screen."""
    screen = page.context.new_cdp_session(page)

    def pen(kind: str, place: Place, button: str = "left") -> None:
        event = {"type": kind, "x": place[0], "y": place[1], "button": button, "clickCount": 1, "pointerType": "pen"}
        screen.send("Input.dispatchMouseEvent", event)

    for stroke in strokes(pad, symbol, seed):
        pen("mousePressed", stroke[0])
        for place in stroke[1:]:
            pen("mouseMoved", place)
        pen("mouseReleased", stroke[-1])
    screen.detach()
