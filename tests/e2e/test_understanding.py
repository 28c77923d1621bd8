"""What a user understands without reading: what the page says of itself, at a glance and on demand."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.conftest import Service
from tests.e2e.files import drag_onto, upload, written
from tests.e2e.journey import (
    answering_with,
    answers,
    button,
    group,
    load_example,
    made_episode,
    open_episode,
    pngs,
    thumb,
    until_ready,
)
from tests.e2e.strokes import draw

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


# ---------------------------------------------------------------------- the task


def test_page_tells_what_the_service_reads(page: Page) -> None:
    knows = re.compile(
        r"It reads drawings, learned from [\d,]+ classes, and photos, .* tells by itself which yours are"
    )
    expect(page.get_by_text(knows)).to_be_visible()


def test_count_and_adapt_are_always_in_view(visit: Callable[..., Page], service: Service) -> None:
    page = visit(f"/#token={service.token}", **PHONE)
    expect(page.get_by_text("0 images, 0 classes. Two classes or more need an image each.")).to_be_in_viewport()
    page.get_by_text("Or try an example").click()
    button(page, "Ten symbols, five drawings each").click()
    for place in ("0", "document.body.scrollHeight / 2"):
        page.evaluate(f"scrollTo(0, {place})")
        expect(button(page, "Adapt")).to_be_in_viewport(ratio=1)
        expect(page.get_by_text("50 images, 10 classes", exact=True)).to_be_in_viewport(ratio=1)


def test_examples_are_pictures_that_are_fetched_when_they_are_asked_for(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/examples") else None)
    expect(button(page, "Adapt")).to_be_visible()
    assert asked == []
    page.get_by_text("Or try an example").press("Enter")
    pictures = button(page, "Ten symbols, five drawings each").locator("canvas")
    expect(pictures).to_have_count(5)
    pictures.first.click()
    expect(thumb(page, "glyph 10", 5)).to_be_visible()
    expect(pictures.first).to_be_hidden()
    assert len(asked) == 1


def test_refused_image_is_shown_wherever_the_user_is(visit: Callable[..., Page], service: Service) -> None:
    page = visit(f"/#token={service.token}", **PHONE)
    page.get_by_text("Or try an example").click()
    button(page, "Ten symbols, five drawings each").click()
    button(page, "Draw glyph 1").click()
    page.locator("#files").set_input_files([upload("cat.png", b"no image at all")])
    expect(thumb(page, "glyph 1", 6)).to_be_visible()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    button(page, "Adapt").click()
    expect(group(page, "glyph 1").get_by_role("alert")).to_contain_text("(cat.png)")
    expect(page.locator(".refused")).to_be_in_viewport()


def test_task_is_named_and_the_name_corrected(page: Page, service: Service) -> None:
    load_example(page)
    name = page.get_by_label("Name of the task")
    expect(name).to_have_value("Three symbols, three drawings each")
    name.fill("runes")
    button(page, "Adapt").click()
    expect(page.get_by_role("heading", name="runes", exact=True)).to_be_visible()
    until_ready(page)
    page.get_by_role("link", name="Correct and grow").click()
    name.fill("runes of stone")
    button(page, "Adapt again").click()
    expect(page.get_by_role("heading", name="runes of stone", exact=True)).to_be_visible()


def test_recent_episodes_are_shown_as_pictures_with_counts(page: Page, service: Service) -> None:
    made_episode(service, pngs(7, 1))
    page.reload()
    recent = page.get_by_role("region", name="Recent episodes").get_by_role("listitem").first
    expect(recent).to_contain_text(re.compile("7 classes: class 0, class 1, \\+5.*7 classes, 7 images, ready"))
    recent.scroll_into_view_if_needed()
    expect(recent.locator("img")).to_have_js_property("naturalWidth", 5 * 28)


# ---------------------------------------------------------------------- the wait


def test_wait_tells_the_place_in_the_queue_and_the_time(page: Page, service: Service) -> None:
    id = made_episode(service, pngs(2, 1))
    waits = {"step": 0, "steps": 3, "loss": [], "ahead": 3}
    page.route("**/events", lambda route: None)
    page.route(re.compile(f"/episodes/{id}$"), answering_with(state="queued", progress=waits))
    page.clock.install()
    open_episode(page, service, id)
    adapting = page.get_by_role("region", name="Adapting")
    expect(adapting).to_contain_text("3 waiting episodes arrived before it; tenants take turns")
    time = page.get_by_role("timer")
    before = time.inner_text()
    page.clock.run_for(2000)
    expect(time).not_to_have_text(before)
    expect(time).to_have_text(re.compile(r"^\d+:\d\d$"))


# ---------------------------------------------------------------------- the result


def test_architecture_is_told_in_a_sentence_and_shown_on_demand(page: Page, service: Service) -> None:
    open_episode(page, service, made_episode(service, pngs(2, 2)))
    told = page.get_by_role("region", name="What it learned")
    expect(told.get_by_text(re.compile(r"^Its architecture: \d+ of \d+ edges and"))).to_be_visible()
    graph = page.get_by_role("img", name="Normal cell")
    expect(graph).to_be_hidden()
    page.get_by_text("See the architecture").press("Enter")
    expect(graph).to_be_visible()


def test_terms_are_explained_where_they_are_read(page: Page, service: Service) -> None:
    open_episode(page, service, made_episode(service, pngs(2, 2)))
    tip = page.get_by_text("Gradient steps on the learned loss")
    expect(button(page, "Steps")).to_be_visible()
    expect(tip).to_be_hidden()
    button(page, "Steps").press("Enter")
    expect(tip).to_be_in_viewport(ratio=1)
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_losses_below_zero_have_no_other_value_on_their_axis(page: Page, service: Service) -> None:
    id = made_episode(service, pngs(2, 1))
    page.route(re.compile(f"/episodes/{id}$"), answering_with(progress={"step": 2, "steps": 2, "loss": [-0.25, -0.5]}))
    open_episode(page, service, id)
    expect(page.locator(".curve .end")).to_have_text(["-0.500", "0.00"])


def test_episode_tells_how_long_it_is_kept_and_is_shared(visit: Callable[..., Page], service: Service) -> None:
    page = visit(f"/#token={service.token}", permissions=["clipboard-read", "clipboard-write"])
    id = made_episode(service, pngs(2, 1))
    open_episode(page, service, id)
    expect(page.get_by_text(re.compile("2 classes, 2 images, .*kept until .* 20"))).to_be_visible()
    button(page, "Copy the link").click()
    expect(button(page, "Copied")).to_be_visible()
    page.goto(page.evaluate("navigator.clipboard.readText()"))
    page.reload()
    expect(page.get_by_role("heading", name="class 0, class 1")).to_be_visible()
    page.get_by_role("link", name="API").click()
    expect(page.get_by_role("heading", name="LAMANAS API")).to_be_visible()


# ---------------------------------------------------------------------- many classes


def test_five_most_probable_of_many_classes_are_shown_and_all_on_demand(page: Page, service: Service) -> None:
    open_episode(page, service, made_episode(service, pngs(7, 1)))
    expect(page.get_by_role("heading", name="7 classes: class 0, class 1, +5")).to_be_visible()
    bars = page.get_by_role("list", name="Probabilities").get_by_role("listitem")
    expect(bars).to_have_count(5)
    draw(page, page.get_by_label("Query pad"), "Symbol A", 1)
    expect(bars.first).to_have_class("best")
    button(page, "Show all 7").click()
    expect(bars).to_have_count(7)
    shares = [float(text.rstrip("%").strip()) for text in bars.locator(".share").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    button(page, "Show the first 5").click()
    expect(bars).to_have_count(5)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_mistakes_among_many_classes(
    scheme: str, visit: Callable[..., Page], service: Service, tmp_path: Path, keep: Callable[[Page, str], None]
) -> None:
    page = visit(f"/#token={service.token}", color_scheme=scheme, reduced_motion="reduce", **PHONE)
    images = pngs(12, 2)
    open_episode(page, service, made_episode(service, [each[:1] for each in images]))
    until_ready(page)
    # The same drawing three times, of which two lie in the wrong folders.
    paths = written(tmp_path, {f"all/class {number}/q.png": images[0][1] for number in range(3)})
    drag_onto(page, page.get_by_label("Query pad"), [paths[0].rpartition("/class")[0]])
    expect(answers(page)).to_have_text(["✓ class 0", "✗ class 0", "✗ class 0"])
    expect(page.get_by_text("1 of 3 correct.")).to_be_visible()
    table = page.get_by_role("region", name="Confusion table")
    rows = table.get_by_role("row")
    expect(rows).to_have_count(13)
    expect(rows.nth(1)).to_have_text("class 011 of 1")  # zeros are blank
    expect(rows.nth(2)).to_have_text("class 110 of 1")
    table.scroll_into_view_if_needed()
    table.evaluate("(region) => region.scrollTo(9999, 9999)")
    expect(table.get_by_role("columnheader", name="correct")).to_be_in_viewport()
    expect(table.get_by_role("rowheader", name="class 11")).to_be_in_viewport()
    button(page, "Show all 12").click()
    assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    keep(page, f"many-{scheme}")
    page.get_by_label("only mistakes").press("Space")
    expect(rows).to_have_count(3)
    expect(table.get_by_role("columnheader")).to_have_text(["class 0", "correct"])
