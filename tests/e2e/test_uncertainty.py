"""What the page says about what the classifier does not know, and how the user helps it."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from tests.conftest import Service
from tests.e2e.files import upload
from tests.e2e.journey import answering_with, answers, button, made_episode, open_episode, pngs, until_ready, verdict
from tests.e2e.strokes import scribble


def shots(page: Page, service: Service) -> Any:
    """The number of images of each class of the episode on the page."""
    id = page.url.rpartition("/")[2]
    return httpx.get(f"{service.url}/episodes/{id}", headers=service.headers).json()["shots"]


def all_strange(route: Route) -> None:
    """No image belongs to a class."""
    found = route.fetch()
    said = found.json()
    said["predictions"] = [each | {"known": False} for each in said["predictions"]]
    route.fulfill(response=found, body=json.dumps(said))


def test_drawing_of_no_class_becomes_a_new_one(page: Page, service: Service) -> None:
    open_episode(page, service, made_episode(service, pngs(2, 2)))
    page.route("**/predict", all_strange)
    scribble(page, page.get_by_label("Query pad"))
    expect(button(page, "Make it a new class")).to_be_visible()
    expect(verdict(page)).to_have_text(re.compile("None of these. Looks most like class [01]."))
    expect(page.locator(".bars.unknown")).to_be_visible()
    button(page, "Make it a new class").click()
    name = page.get_by_label("Name of the new class", exact=True)
    expect(name).to_be_focused()
    expect(button(page, "Add it and adapt again")).to_be_disabled()
    page.keyboard.type("scribble")
    button(page, "Add it and adapt again").click()
    expect(page.get_by_text("3 classes, 5 images")).to_be_visible()
    assert shots(page, service) == {"class 0": 2, "class 1": 2, "scribble": 1}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_images_of_no_class_become_a_new_one(scheme: str, visit: Callable[..., Page], service: Service) -> None:
    page = visit(f"/#token={service.token}", color_scheme=scheme, reduced_motion="reduce")
    images = pngs(3, 4)
    open_episode(page, service, made_episode(service, [each[:2] for each in images[:2]]))
    until_ready(page)
    page.route("**/predict", all_strange)
    page.locator("#query-files").set_input_files([upload(f"{n}.png", data) for n, data in enumerate(images[2])])
    strange = page.locator(".grid li.strange")
    expect(strange).to_have_count(4)
    expect(strange.first).to_have_text(re.compile("None of these.*Looks most like class"))
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    button(page, "Add them and adapt again").press("Enter")  # without a name
    page.get_by_label("Name of the new class for the ticked images").fill("third")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("Tick the images of the new class.")
    for number in (1, 2, 3):
        page.get_by_label(f"{number}.png: of a new class").check()
    page.unroute("**/predict")
    button(page, "Add them and adapt again").click()
    expect(page.get_by_text("3 classes, 7 images")).to_be_visible()
    assert shots(page, service) == {"class 0": 2, "class 1": 2, "third": 3}
    expect(answers(page)).to_have_text(["third"] * 4)


@pytest.mark.parametrize(
    ("accuracy", "words", "kind"),
    [
        (0.34, "34\u00a0% right; guessing would be 33\u00a0%. Add images of each class", "notice"),
        (1.0, "100\u00a0% right; guessing would be 33\u00a0%.", "checked"),
        (None, "Not checked: with a second image of each class", "checked"),
    ],
)
def test_honest_accuracy_comes_first(
    accuracy: float | None, words: str, kind: str, page: Page, service: Service
) -> None:
    id = made_episode(service, pngs(3, 2))
    page.route(re.compile(f"/episodes/{id}$"), answering_with(leave_one_out_accuracy=accuracy))
    open_episode(page, service, id)
    told = page.locator(".page > .stack > *").first
    expect(told).to_contain_text(words)
    expect(told).to_have_class(kind)


def test_doubtful_labels_are_moved(page: Page, service: Service) -> None:
    first, second, third = pngs(3, 5)
    first[4], second[4] = second[4], first[4]
    open_episode(page, service, made_episode(service, [first, second, third]))
    doubts = page.get_by_role("region", name="Doubtful labels")
    expect(doubts.locator("canvas")).to_have_count(2)
    expect(button(page, "Move and adapt again")).to_be_disabled()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    doubts.get_by_label("Move it to class 1").check()
    button(page, "Move and adapt again").click()
    expect(page.get_by_text("corrected from")).to_be_visible()
    until_ready(page)
    assert shots(page, service) == {"class 0": 4, "class 1": 6, "class 2": 5}
