"""Nothing that the user has made is lost: by reloading, by leaving, by a busy service, by a session that ends."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from tests.conftest import Service
from tests.e2e.files import upload
from tests.e2e.journey import answers, button, made_episode, open_episode, pngs, thumb, until_ready, verdict
from tests.e2e.photos import encoded, photo
from tests.e2e.strokes import draw

CREATE = re.compile(r"/episodes$")


def filled(page: Page) -> None:
    """A task with a drawing and a photo, ready to be sent."""
    draw(page, page.get_by_label("Drawing pad"), "Symbol A", 1)
    button(page, "Add to Symbol A").click()
    expect(thumb(page, "Symbol A", 1)).to_be_visible()
    button(page, "Draw Symbol B").click()
    page.locator("#files").set_input_files([upload("b.jpg", encoded(photo(1, 800, 600)), "image/jpeg")])
    expect(thumb(page, "Symbol B", 1)).to_be_visible()


def until_saved(page: Page) -> None:
    """Until all that was to be written to the browser's database is there: what is asked of it now comes after."""
    page.evaluate("import('/static/draft.js').then(({ load }) => load('task'))")


def refusing(times: int, status: int, **headers: str) -> Callable[[Route], None]:
    """Refuses so many requests; the service answers those that follow."""
    left = [None] * times

    def answer(route: Route) -> None:
        if not left:
            return route.continue_()
        left.pop()
        route.fulfill(status=status, headers=headers, content_type="application/json", body='{"detail": "too much"}')
        return None

    return answer


# ---------------------------------------------------------------------- drafts


def test_task_survives_reloading(page: Page) -> None:
    filled(page)
    page.get_by_label("Name of the class").first.fill("corner")
    page.keyboard.press("Tab")
    until_saved(page)
    page.reload()
    expect(page.get_by_text("Your task from before was restored.")).to_be_visible()
    expect(thumb(page, "corner", 1)).to_be_visible()
    expect(thumb(page, "Symbol B", 1)).to_be_visible()
    # It goes on as before: what is added gets names of its own, and it can be sent.
    button(page, "+ Add a class").click()
    expect(page.get_by_label("Name of the class")).to_have_count(4)
    button(page, "Adapt").click()
    expect(page.get_by_role("heading", name="Ask", exact=True)).to_be_visible()
    page.go_back()
    expect(thumb(page, "corner", 1)).to_be_visible()
    expect(page.get_by_text("Your task from before was restored.")).to_have_count(0)


def test_restored_task_is_started_over(page: Page) -> None:
    filled(page)
    until_saved(page)
    page.reload()
    button(page, "Start over with none").click()
    expect(page.get_by_text("Two classes or more need an image each.")).to_be_visible()
    until_saved(page)
    page.reload()
    expect(button(page, "Adapt")).to_be_visible()
    expect(page.get_by_text("was restored")).to_have_count(0)


def test_corrections_survive_reloading(page: Page, service: Service) -> None:
    id = made_episode(service, pngs(2, 2))
    open_episode(page, service, f"{id}/correct")
    thumb(page, "class 0", 2).press("Delete")
    expect(thumb(page, "class 0", 2)).to_have_count(0)
    until_saved(page)
    page.reload()
    expect(page.get_by_text("Your changes from before were restored.")).to_be_visible()
    expect(thumb(page, "class 0", 1)).to_be_visible()
    expect(thumb(page, "class 0", 2)).to_have_count(0)
    button(page, "Drop the changes").click()
    expect(thumb(page, "class 0", 2)).to_be_visible()
    until_saved(page)
    page.reload()
    expect(thumb(page, "class 0", 2)).to_be_visible()
    expect(page.get_by_text("were restored")).to_have_count(0)


def test_signing_out_forgets_the_task(page: Page, service: Service) -> None:
    filled(page)
    until_saved(page)
    button(page, "Sign out").click()
    page.get_by_label("Token").fill(service.token)
    button(page, "Sign in").click()
    expect(page.get_by_label("Drawing pad")).to_be_visible()
    expect(thumb(page, "Symbol A", 1)).to_have_count(0)


def test_page_works_where_the_browser_keeps_nothing(visit: Callable[..., Page], service: Service) -> None:
    page = visit("/docs")
    page.add_init_script("Object.defineProperty(window, 'indexedDB', { value: undefined })")
    page.goto(f"{service.url}/#token={service.token}")
    filled(page)


# ---------------------------------------------------------------------- one key an intention


def test_request_whose_answer_was_lost_is_sent_again_with_its_key(page: Page) -> None:
    filled(page)
    keys: list[str] = []

    def lose_the_first(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.abort()
        else:
            route.continue_()

    page.route(CREATE, lose_the_first)
    button(page, "Adapt").click()
    expect(page.get_by_role("alert")).to_contain_text("does not respond")
    button(page, "Adapt").click()
    expect(page.get_by_role("heading", name="Ask", exact=True)).to_be_visible()
    assert len(keys) == 2
    assert keys[0] == keys[1]
    # Once answered, the same task is wanted anew.
    page.go_back()
    button(page, "Adapt").click()
    expect(page.get_by_role("heading", name="Ask", exact=True)).to_be_visible()
    assert len({*keys}) == 2


@pytest.mark.parametrize("what", ["Adapt", "Add it and adapt again"])
def test_button_that_sends_is_disabled_until_it_is_answered(what: str, page: Page, service: Service) -> None:
    if what == "Adapt":
        filled(page)
    else:
        open_episode(page, service, made_episode(service, pngs(2, 1)))
        draw(page, page.get_by_label("Query pad"), "Symbol A", 1)
        page.get_by_label("What it is").select_option("class 1")
    held: list[Route] = []
    creates = re.compile("/episodes$|/support$")
    page.route(creates, lambda route: held.append(route))
    with page.expect_request(creates):
        button(page, what).click()
    expect(button(page, what)).to_be_disabled()
    held[0].abort()
    expect(page.get_by_role("alert")).to_contain_text("does not respond")
    expect(button(page, what)).to_be_enabled()
    assert len(held) == 1


# ---------------------------------------------------------------------- a session that ends


def test_session_that_ended_is_renewed_over_the_intact_page(page: Page, service: Service) -> None:
    filled(page)
    page.context.clear_cookies()
    button(page, "Adapt").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Your session has ended")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("alert")).to_be_visible()
    expect(thumb(page, "Symbol B", 1)).to_be_visible()
    button(page, "Adapt").click()
    dialog.get_by_label("Token").fill("lam_wrong")
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog.get_by_role("alert")).to_contain_text("unknown")
    dialog.get_by_label("Token").fill(service.token)
    page.keyboard.press("Enter")
    # What was refused is sent again by itself.
    expect(page.get_by_role("heading", name="Ask", exact=True)).to_be_visible()
    expect(dialog).to_have_count(0)


# ---------------------------------------------------------------------- a busy service


@pytest.mark.parametrize("refusal", [(429, {"Retry-After": "1"}), (503, {}), (409, {"Retry-After": "1"})])
def test_busy_service_is_asked_again_with_a_word(refusal: tuple[int, dict[str, str]], page: Page) -> None:
    filled(page)
    page.route(CREATE, refusing(2, refusal[0], **refusal[1]))
    button(page, "Adapt").click()
    busy = page.locator(".busy")
    expect(busy).to_have_text(f"The service is busy, trying again in {refusal[1].get('Retry-After', 2)} s")
    expect(page.get_by_role("heading", name="Ask", exact=True)).to_be_visible()
    expect(busy).to_be_hidden()


def test_no_stale_verdict_stays_while_the_service_is_busy(page: Page, service: Service) -> None:
    open_episode(page, service, made_episode(service, pngs(2, 1)))
    pad = page.get_by_label("Query pad")
    draw(page, pad, "Symbol A", 1)
    expect(verdict(page)).to_contain_text("class")
    page.route("**/predict", refusing(10_000, 503))
    draw(page, pad, "Symbol B", 1)
    expect(page.locator(".busy")).to_be_visible()
    expect(verdict(page)).to_have_text("Draw one of the symbols again.")
    page.unroute("**/predict")
    expect(verdict(page)).to_contain_text("class")
    expect(page.locator(".busy")).to_be_hidden()


def test_unanswered_images_stay_and_are_retried(page: Page, service: Service) -> None:
    images = pngs(2, 3)
    open_episode(page, service, made_episode(service, [each[:2] for each in images]))
    until_ready(page)
    page.route("**/predict", lambda route: route.abort())
    page.locator("#query-files").set_input_files([upload(f"{n}.png", each[2]) for n, each in enumerate(images)])
    expect(answers(page)).to_have_text(["Not answered"] * 2)
    expect(page.get_by_role("alert")).to_contain_text("does not respond")
    page.unroute("**/predict")
    held: list[Route] = []
    page.route("**/predict", lambda route: held.append(route))
    with page.expect_request("**/predict"):
        button(page, "Retry 2 not answered").click()
    expect(page.get_by_text("Asking…")).to_have_count(2)
    expect(page.get_by_role("button", name=re.compile("^Retry"))).to_have_count(0)
    held[0].continue_()
    expect(answers(page)).to_have_text(["class 0", "class 1"])
    expect(page.get_by_role("alert")).to_have_count(0)


def test_bad_image_is_marked_and_the_others_are_answered(page: Page, service: Service) -> None:
    images = pngs(2, 3)
    open_episode(page, service, made_episode(service, [each[:2] for each in images]))
    until_ready(page)
    files: list[Any] = [upload("0.png", images[0][2]), upload("1.png", b"no image"), upload("2.png", images[1][2])]
    page.locator("#query-files").set_input_files(files)
    expect(answers(page)).to_have_text(["class 0", "No answer", "class 1"])
    expect(page.locator(".grid li.wrong")).to_contain_text("not a PNG")
    expect(page.get_by_role("button", name=re.compile("^Retry"))).to_have_count(0)
