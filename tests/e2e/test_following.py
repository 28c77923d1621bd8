"""How the page follows what changes, when the service is too busy and when nobody looks any more."""

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.conftest import Service
from tests.e2e.journey import button, hide, made_episode, open_episode, pngs, until_ready

EVENTS = re.compile(r"/events$")
# Follows what is never there, and says each time that it asked what became of it.
FOLLOW = """async () => {
  const { follow } = await import("/static/events.js");
  const no = () => {};
  const read = async () => { console.log("asked"); return { state: "adapting" }; };
  window.stop = follow("/made-up/events", { ends: ["ready"], read, progress: no, finished: no, lost: no });
}"""


def answering(*answers: Callable[[Route], None]) -> Callable[[Route], None]:
    """The first requests are answered so, one by one; the service answers what comes after them."""
    left = list(answers)

    def answer(route: Route) -> None:
        (left.pop(0) if left else Route.continue_)(route)

    return answer


def busy(status: int) -> Callable[[Route], None]:
    def answer(route: Route) -> None:
        route.fulfill(status=status, content_type="application/problem+json", body='{"detail": "too much to do"}')

    return answer


def still_adapting(route: Route) -> None:
    answer = route.fetch()
    route.fulfill(response=answer, body=json.dumps(answer.json() | {"state": "adapting"}))


def urls_of(page: Page, wanted: re.Pattern[str]) -> list[str]:
    """What the page asks for from now on."""
    asked: list[str] = []

    def hear(request: Request) -> None:
        if wanted.search(request.url):
            asked.append(request.url)

    page.on("request", hear)
    return asked


@pytest.mark.parametrize("read", [still_adapting, busy(429), busy(503)])
def test_refused_stream_is_opened_again(page: Page, service: Service, read: Callable[[Route], None]) -> None:
    id = made_episode(service, pngs(2, 1))
    page.route(EVENTS, answering(busy(503), busy(429)))
    page.route(re.compile(f"/episodes/{id}$"), answering(still_adapting, read, still_adapting))
    open_episode(page, service, id)
    until_ready(page)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_stopped_following_asks_for_nothing_more(page: Page) -> None:
    asked = urls_of(page, EVENTS)
    page.route(EVENTS, busy(503))
    page.clock.install()
    with page.expect_console_message(lambda message: message.text == "asked"):
        page.evaluate(FOLLOW)
    with page.expect_console_message(lambda message: message.text == "asked"):
        page.clock.run_for(10_000)
    page.evaluate("stop()")
    page.clock.run_for(60_000)
    assert len(asked) == 2


def test_page_that_was_left_while_it_opened_follows_nothing(page: Page, service: Service) -> None:
    id = made_episode(service, pngs(2, 1))
    asked_for = re.compile(r"/episodes/\w+$")
    held: list[Route] = []
    followed = urls_of(page, EVENTS)
    page.route(asked_for, lambda route: held.append(route))
    expect(button(page, "Adapt")).to_be_visible()
    with page.expect_request(asked_for):
        page.goto(f"{service.url}/#/episodes/{id}")
    page.goto(f"{service.url}/#/")
    expect(button(page, "Adapt")).to_be_visible()
    with page.expect_response(asked_for) as answered:
        still_adapting(held[0])
    answered.value.finished()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert followed == []


def test_hidden_tab_keeps_no_stream_open(page: Page) -> None:
    page.route(EVENTS, lambda route: None)  # open, and nothing happens
    with page.expect_request(EVENTS):
        page.evaluate(FOLLOW)
    with page.expect_event("requestfailed", lambda request: EVENTS.search(request.url) is not None):
        hide(page, hidden=True)
    with page.expect_request(EVENTS):
        hide(page, hidden=False)
    page.evaluate("stop()")
    asked = urls_of(page, EVENTS)
    hide(page, hidden=False)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert asked == []
