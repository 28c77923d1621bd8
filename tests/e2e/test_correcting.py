"""A finished task is corrected, grows and is adapted to again."""

from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import Service
from tests.e2e.files import upload
from tests.e2e.journey import answers, button, group, load_example, made_episode, open_episode, pngs, thumb, until_ready
from tests.e2e.strokes import draw


def episode(service: Service, id: str) -> Any:
    return httpx.get(f"{service.url}/episodes/{id}", headers=service.headers).json()


def shown(page: Page) -> str:
    """The id of the episode on the page."""
    return page.url.rpartition("/")[2]


def test_corrected_task_becomes_a_new_episode_that_answers_better(page: Page, service: Service) -> None:
    first, second, third = pngs(3, 4)
    # One drawing of the second lies among those of the first, and of the third there is none yet.
    old = made_episode(service, [[*first[:2], second[0]], second[1:2]], name="mixed up")
    before = episode(service, old)
    open_episode(page, service, old)
    page.locator("#query-files").set_input_files([upload("q.png", data) for data in (first[3], second[3], third[3])])
    expect(answers(page)).to_have_count(3)

    page.get_by_role("link", name="Correct and grow").click()
    button(page, "Adapt again").click()
    expect(page.get_by_role("alert")).to_have_text("Nothing has been changed yet.")
    thumb(page, "class 0", 3).click()
    page.get_by_label("Move class 0, image 3 to").select_option("class 1")
    expect(thumb(page, "class 1", 2)).to_be_visible()
    button(page, "+ Add a class").click()
    page.locator("#files").set_input_files([upload("x.png", third[0]), upload("y.png", b"no image at all")])
    button(page, "Adapt again").click()
    expect(group(page, "Symbol C").get_by_role("alert")).to_contain_text("(y.png)")
    thumb(page, "Symbol C", 2).click()
    button(page, "Remove Symbol C, image 2").click()
    thumb(page, "class 0", 1).press("Delete")
    button(page, "Adapt again").click()

    until_ready(page)
    # What was asked about the old one is asked again.
    expect(answers(page)).to_have_text(["class 0", "class 1", "Symbol C"])
    child = episode(service, shown(page))
    assert child["shots"] == {"class 0": 1, "class 1": 2, "Symbol C": 1}
    assert (child["parent"], child["name"]) == (old, "mixed up")
    assert episode(service, old) == before
    page.get_by_role("link", name="an earlier episode").click()
    expect(page.get_by_text("2 classes, 4 images")).to_be_visible()
    assert shown(page) == old


def test_drawing_that_it_took_for_another_is_taught(page: Page, service: Service) -> None:
    old = made_episode(service, pngs(2, 2))
    open_episode(page, service, old)
    draw(page, page.get_by_label("Query pad"), "Symbol A", 1)
    page.get_by_label("What it is").select_option("class 1")
    button(page, "Add it and adapt again").click()
    expect(page.get_by_text("2 classes, 5 images")).to_be_visible()
    until_ready(page)
    assert episode(service, shown(page))["shots"] == {"class 0": 2, "class 1": 3}
    draw(page, page.get_by_label("Query pad"), "Symbol A", 2)
    expect(page.locator(".verdict")).to_have_text("class 1")


@pytest.mark.parametrize("way", ["dragged", "by a new class"])
def test_image_is_moved_to_another_class_before_anything_is_sent(way: str, page: Page) -> None:
    load_example(page)
    if way == "dragged":
        page.set_viewport_size({"width": 1280, "height": 1500})  # both are to be seen at once
        thumb(page, "glyph 1", 3).drag_to(group(page, "glyph 2"))
        expect(thumb(page, "glyph 2", 4)).to_be_visible()
    else:
        thumb(page, "glyph 1", 3).click()
        page.get_by_label("Move glyph 1, image 3 to").select_option("A new class")
        expect(thumb(page, "Symbol D", 1)).to_be_visible()
    expect(thumb(page, "glyph 1", 3)).to_have_count(0)
