"""What hands and networks do: a click too many, a key too early, an answer too late."""

import re
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.conftest import Service
from tests.e2e.journey import button, load_example, made_episode, open_episode, pngs, thumb, until_ready
from tests.e2e.strokes import draw


def type_name(page: Page, text: str) -> None:
    page.get_by_label("Name of the class").first.click()
    page.keyboard.press("Control+a")
    page.keyboard.type(text)


def middle(page: Page) -> tuple[float, float]:
    box = page.get_by_label("Drawing pad").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_click_that_ends_the_typing_of_a_name_counts(page: Page) -> None:
    type_name(page, "cat")
    button(page, "Draw Symbol B").click()
    expect(button(page, "Add to Symbol B")).to_be_visible()
    expect(button(page, "Delete class: cat")).to_be_visible()


def test_tab_out_of_a_new_name_goes_to_the_next_element(page: Page) -> None:
    type_name(page, "cat")
    page.keyboard.press("Tab")
    expect(button(page, "Draw cat")).to_be_focused()


@pytest.mark.parametrize("twice", ["clicked", "held"])
def test_drawing_that_is_added_twice_at_once_is_there_once(twice: str, page: Page) -> None:
    draw(page, page.get_by_label("Drawing pad"), "Symbol A", 1)
    if twice == "clicked":
        button(page, "Add to Symbol A").dblclick()
    else:
        page.keyboard.down("Enter")
        page.keyboard.down("Enter")
    expect(thumb(page, "Symbol A", 1)).to_be_visible()
    # What is added later comes after all that was on its way.
    draw(page, page.get_by_label("Drawing pad"), "Symbol B", 1)
    button(page, "Add to Symbol A").click()
    expect(thumb(page, "Symbol A", 2)).to_be_visible()
    expect(thumb(page, "Symbol A", 3)).to_have_count(0)


def test_stroke_begun_while_a_drawing_is_added_stays(page: Page) -> None:
    draw(page, page.get_by_label("Drawing pad"), "Symbol A", 1)
    page.keyboard.press("Enter")
    draw(page, page.get_by_label("Drawing pad"), "Symbol B", 1)
    expect(thumb(page, "Symbol A", 1)).to_be_visible()
    expect(button(page, "Add to Symbol A")).to_be_enabled()


@pytest.mark.parametrize("key", ["z", "Delete", "Enter"])
def test_key_while_the_pen_is_down_leaves_the_pad_in_order(key: str, page: Page) -> None:
    x, y = middle(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y + 20, steps=4)
    page.keyboard.press(key)
    page.mouse.move(x + 60, y + 60, steps=4)
    page.mouse.up()
    draw(page, page.get_by_label("Drawing pad"), "Symbol B", 1)
    expect(button(page, "Add to Symbol A")).to_be_enabled()


def test_double_click_deletes_no_episode(page: Page, service: Service) -> None:
    id = made_episode(service, pngs(2, 1))
    open_episode(page, service, id)
    button(page, "Delete the episode").dblclick()
    expect(button(page, "Delete it for good?")).to_be_visible()
    button(page, "Copy as curl").focus()
    expect(button(page, "Delete the episode")).to_be_visible()
    assert httpx.get(f"{service.url}/episodes/{id}", headers=service.headers).status_code == 200


@pytest.mark.parametrize("slow", ["Correct and grow", "Adapt", "Add it and adapt again"])
def test_late_answer_leaves_the_page_that_was_gone_on_to(slow: str, page: Page, service: Service) -> None:
    held: list[Route] = []
    if slow == "Adapt":
        load_example(page)
    else:
        open_episode(page, service, made_episode(service, pngs(2, 1)))
        until_ready(page)
    asked_for = re.compile("/episodes$|/support$")
    page.route(asked_for, lambda route: held.append(route))
    with page.expect_request(asked_for):
        if slow == "Adapt":
            button(page, slow).click()
        elif slow == "Correct and grow":
            page.get_by_role("link", name=slow).click()
        else:
            draw(page, page.get_by_label("Query pad"), "Symbol A", 1)
            page.get_by_label("What it is").select_option("class 1")
            button(page, slow).click()
    page.get_by_role("link", name="Operate").click()
    expect(page.get_by_role("heading", name="Operate")).to_be_visible()
    with page.expect_response(asked_for) as answered:
        held[0].continue_()
    answered.value.finished()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert page.url == f"{service.url}/#/operate"
    expect(page.get_by_role("heading", name="Operate")).to_be_visible()


def test_long_names_fit_a_narrow_screen(visit: Callable[..., Page], service: Service) -> None:
    page = visit(f"/#token={service.token}", viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    fits = "document.documentElement.scrollWidth <= 320"
    expect(button(page, "Draw Symbol A")).to_be_visible()
    assert page.evaluate(fits)
    page.get_by_label("Name of the class").nth(1).fill("W" * 190)
    draw(page, page.get_by_label("Drawing pad"), "Symbol A", 1)
    button(page, "Add to Symbol A").click()
    thumb(page, "Symbol A", 1).click()
    expect(button(page, "Remove Symbol A, image 1")).to_be_visible()
    assert page.evaluate(fits)
    images = [("images", ("image.png", each[0])) for each in pngs(2, 1)]
    answer = httpx.post(
        f"{service.url}/episodes",
        headers=service.headers | {"Prefer": "wait=60"},
        files=images,
        data={"labels": ["W" * 150, "b"]},
        timeout=90,
    )
    page.goto(f"{service.url}/#/episodes/{answer.json()['id']}")
    until_ready(page)
    draw(page, page.get_by_label("Query pad"), "Symbol A", 1)
    expect(button(page, "Add it and adapt again")).to_be_visible()
    assert page.evaluate(fits)


def test_page_that_cannot_be_fetched_is_told(page: Page, service: Service) -> None:
    page.route("**/operate.js", lambda route: route.abort())
    page.get_by_role("link", name="Operate").click()
    expect(page.get_by_role("alert")).to_have_text("the service does not respond; is it still running?")
    page.unroute("**/operate.js")
    page.goto(f"{service.url}/#/")
    expect(page.get_by_label("Drawing pad")).to_be_visible()


def test_class_whose_name_has_spaces_is_taught_as_it_is(page: Page, service: Service) -> None:
    id = made_episode(service, pngs(2, 1), labels=["a  b", " c "])
    open_episode(page, service, id)
    draw(page, page.get_by_label("Query pad"), "Symbol A", 1)
    page.get_by_label("What it is").select_option("a  b")
    button(page, "Add it and adapt again").click()
    expect(page.get_by_text("2 classes, 3 images")).to_be_visible()
