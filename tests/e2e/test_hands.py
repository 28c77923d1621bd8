"""How the page is handled: keys, several images at once, a fine pad, and questions that are not too many."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Request, expect

from tests.conftest import Service
from tests.e2e.journey import (
    button,
    load_example,
    made_episode,
    open_episode,
    pngs,
    thumb,
    until_ready,
    verdict,
)
from tests.e2e.strokes import draw


def test_keys_choose_fill_and_make_classes(page: Page) -> None:
    draw(page, page.get_by_label("Drawing pad"), "Symbol A", 1)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("2")
    expect(button(page, "Add to Symbol B")).to_be_visible()
    page.keyboard.press("9")  # there is no such class
    page.keyboard.press("Enter")
    expect(thumb(page, "Symbol B", 1)).to_be_visible()
    page.keyboard.press("n")
    expect(page.get_by_label("Name of the class")).to_have_count(4)
    page.keyboard.type("1n")
    page.keyboard.press("Tab")
    expect(button(page, "Add to 1n")).to_be_visible()
    expect(page.get_by_label("Name of the class")).to_have_count(4)
    # On a button, Enter presses it.
    button(page, "Draw Symbol C").press("Enter")
    expect(button(page, "Add to Symbol C")).to_be_visible()


def test_keys_are_shown_where_they_do_something(page: Page) -> None:
    expect(page.locator("kbd")).to_have_text(["Enter", "1", "2", "3", "N"])
    expect(button(page, "Add to Symbol A")).to_have_attribute("aria-keyshortcuts", "Enter")


@pytest.mark.parametrize("way", ["clicked", "by keyboard", "dragged"])
def test_several_images_are_moved_at_once(way: str, page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 1500})
    load_example(page)
    if way == "by keyboard":
        thumb(page, "glyph 1", 1).press("Enter")
        button(page, "Pick several").press("Space")
        thumb(page, "glyph 2", 3).press("Enter")
    else:
        thumb(page, "glyph 1", 1).click()
        thumb(page, "glyph 2", 3).click(modifiers=["ControlOrMeta"])
    if way == "dragged":
        thumb(page, "glyph 1", 1).drag_to(page.get_by_role("group", name="glyph 3", exact=True))
    else:
        page.get_by_label("Move 2 images to").select_option("glyph 3")
    expect(thumb(page, "glyph 3", 5)).to_be_visible()
    expect(thumb(page, "glyph 1", 3)).to_have_count(0)
    expect(thumb(page, "glyph 2", 3)).to_have_count(0)
    page.keyboard.press("Control+z")
    expect(thumb(page, "glyph 1", 3)).to_be_visible()
    expect(thumb(page, "glyph 2", 3)).to_be_visible()


def test_several_images_are_removed_at_once(page: Page) -> None:
    load_example(page)
    thumb(page, "glyph 1", 1).click()
    thumb(page, "glyph 2", 3).click(modifiers=["Shift"])
    thumb(page, "glyph 2", 2).click(modifiers=["Shift"])
    thumb(page, "glyph 1", 1).click(modifiers=["Shift"])  # not this one after all
    thumb(page, "glyph 2", 3).press("Delete")
    expect(thumb(page, "glyph 1", 3)).to_be_visible()
    expect(thumb(page, "glyph 2", 1)).to_be_visible()
    expect(thumb(page, "glyph 2", 2)).to_have_count(0)


@pytest.mark.parametrize("scale", [1, 3])
def test_pad_has_the_pixels_of_the_screen(scale: int, visit: Callable[..., Page], service: Service) -> None:
    page = visit(f"/#token={service.token}", device_scale_factor=scale)
    pad = page.get_by_label("Drawing pad")
    expect(pad).to_be_visible()
    width = round(scale * float(pad.evaluate("pad => pad.clientWidth")))
    expect(pad).to_have_js_property("width", width)
    expect(pad).to_have_js_property("height", width)


def inked(page: Page, x: float, y: float) -> bool:
    """Whether there is ink here on the pad, in shares of its side."""
    script = "(pad, [x, y]) => pad.getContext('2d').getImageData(x * pad.width, y * pad.width, 1, 1).data[3] > 0"
    return bool(page.get_by_label("Drawing pad").evaluate(script, [x, y]))


def test_strokes_are_smooth_and_end_where_the_pen_does(page: Page) -> None:
    pad = page.get_by_label("Drawing pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    places = [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8)]
    for at, (x, y) in enumerate(places):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if not at:
            page.mouse.down()
    page.mouse.up()
    assert [inked(page, x, y) for x, y in places] == [True, False, True]


def test_at_most_eight_questions_are_asked_in_a_second(page: Page, service: Service) -> None:
    open_episode(page, service, made_episode(service, pngs(2, 2)))
    until_ready(page)
    pad = page.get_by_label("Query pad")
    asked: list[Any] = []

    def heard(request: Request) -> None:
        if request.url.endswith("/predict"):
            asked.append(request)

    page.on("request", heard)
    now = page.evaluate("Date.now()")
    page.clock.install(time=now / 1000)
    page.clock.pause_at((now + 60_000) / 1000)
    for number in range(7):
        draw(page, pad, "Symbol B", number)  # three strokes
    assert len(asked) == 8
    with page.expect_request("**/predict"):
        page.clock.run_for(1100)
    expect(verdict(page)).to_have_text(re.compile("class"))
    assert len(asked) == 9
