"""Getting in, and using the page by keyboard, on a phone, and as axe sees it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from tests.conftest import Service
from tests.e2e.conftest import PATIENCE_MS
from tests.e2e.journey import adapt, answering_with, button, draw_task, load_example, thumb, verdict
from tests.e2e.strokes import draw, draw_with_a_finger
from tests.proxied import proxied

Keep = Callable[[Page, str], None]


def test_signing_in_and_out(visit: Callable[..., Page], service: Service) -> None:
    page = visit()
    token = page.get_by_label("Token")
    token.fill("lam_wrong")
    button(page, "Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("the bearer token is unknown or was revoked")
    token.fill(service.token)
    button(page, "Sign in").click()
    expect(page.get_by_label("Drawing pad")).to_be_visible()
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.reload()
    button(page, "Sign out").click()
    expect(token).to_be_visible()
    assert page.context.cookies() == []


def test_token_of_the_printed_link_does_not_stay_in_the_address(page: Page, service: Service) -> None:
    expect(page.get_by_label("Drawing pad")).to_be_visible()
    assert page.url == f"{service.url}/#/"


def test_link_with_a_damaged_token_asks_for_another(visit: Callable[..., Page], service: Service) -> None:
    page = visit("/#token=%")
    expect(page.get_by_role("alert")).to_have_text("the bearer token is unknown or was revoked")
    page.get_by_label("Token").fill(service.token)
    button(page, "Sign in").click()
    expect(page.get_by_label("Drawing pad")).to_be_visible()


def test_whole_journey_by_keyboard_alone(page: Page) -> None:
    def go_to(target: Locator) -> None:
        expect(target).to_be_visible()
        for _ in range(60):
            if target.evaluate("element => element === document.activeElement"):
                return
            page.keyboard.press("Tab")
        pytest.fail(f"Tab does not reach {target}")

    def stroke(*arrows: str) -> None:
        page.keyboard.press("Space")
        for arrow in arrows:
            for _ in range(8):
                page.keyboard.press(arrow)
        page.keyboard.press("Space")

    signs = {"Symbol A": ("ArrowLeft", "ArrowUp"), "Symbol B": ("ArrowDown", "ArrowRight", "ArrowUp", "ArrowLeft")}
    for symbol, arrows in signs.items():
        go_to(button(page, f"Draw {symbol}"))
        page.keyboard.press("Enter")
        go_to(page.get_by_label("Drawing pad"))
        stroke(*arrows)
        page.keyboard.press("Enter")
        expect(thumb(page, symbol, 1)).to_be_visible()
    # To another class and, taken back, home again.
    go_to(thumb(page, "Symbol B", 1))
    page.keyboard.press("Enter")
    go_to(page.get_by_label("Move Symbol B, image 1 to"))
    page.keyboard.type("Symbol A")
    page.keyboard.press("Enter")
    expect(thumb(page, "Symbol A", 2)).to_be_visible()
    page.keyboard.press("Control+z")
    expect(thumb(page, "Symbol B", 1)).to_be_visible()
    go_to(button(page, "Adapt"))
    page.keyboard.press("Enter")
    go_to(page.get_by_label("Query pad"))
    stroke(*signs["Symbol B"])
    expect(verdict(page)).to_have_text("Symbol B")


def test_phone_shows_everything_without_scrolling_sideways(
    visit: Callable[..., Page], service: Service, keep: Keep
) -> None:
    page = visit(f"/#token={service.token}", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)

    def check() -> None:
        assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")

    draw_task(page, shots=1, draw=draw_with_a_finger)
    check()
    keep(page, "task-phone")
    adapt(page)
    draw_with_a_finger(page, page.get_by_label("Query pad"), "Symbol B", seed=7)
    expect(verdict(page)).to_have_text("Symbol B")
    check()
    keep(page, "adapted-phone")
    page.get_by_role("link", name="Correct and grow").click()
    thumb(page, "Symbol B", 1).click()
    check()
    page.get_by_role("link", name="Operate").click()
    expect(page.get_by_text("on cpu since")).to_have_count(2)
    check()
    page.goto(f"{service.url}/docs")
    expect(page.get_by_role("heading", name="Schemas")).to_be_visible()
    check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme: str, visit: Callable[..., Page], service: Service, keep: Keep) -> None:
    def check() -> None:
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()

    # A colour that is half way to another has no contrast to speak of.
    page = visit("/", color_scheme=scheme, reduced_motion="reduce")
    expect(page.get_by_label("Token")).to_be_visible()
    check()
    page.goto(f"{service.url}/#token={service.token}")
    load_example(page)
    draw(page, page.get_by_label("Drawing pad"), "Symbol A", 1)
    keep(page, f"task-{scheme}")
    button(page, "Clear").click()
    adapt(page)
    expect(page.locator(".grid li.right")).to_have_count(6)
    draw(page, page.get_by_label("Query pad"), "Symbol A", 1)
    expect(verdict(page)).to_contain_text("glyph")
    keep(page, f"adapted-{scheme}")
    page.get_by_text("See the architecture").click()
    for table in page.get_by_text("As a table").all():
        table.click()
    check()
    page.get_by_role("link", name="Correct and grow").click()
    thumb(page, "glyph 2", 1).click()
    button(page, "Adapt again").click()
    expect(page.get_by_role("alert")).to_be_visible()
    keep(page, f"correct-{scheme}")
    check()
    page.get_by_role("link", name="Operate").click()
    expect(page.get_by_text("on cpu since")).to_have_count(2)
    check()


def test_reference_tells_every_operation_and_axe_finds_nothing(visit: Callable[..., Page], service: Service) -> None:
    page = visit("/docs", reduced_motion="reduce")
    page.get_by_role("link", name="POST /episodes/{id}/support").click()
    expect(page.get_by_role("heading", name="POST /episodes/{id}/support")).to_be_in_viewport()
    described = page.evaluate("fetch('/openapi.json').then((answer) => answer.json())")
    count = sum(len(methods) for methods in described["paths"].values())
    expect(page.locator("article h3 .method")).to_have_count(count)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_whole_page_works_below_a_prefix_behind_a_proxy_with_tls(
    browser: Browser, service: Service, short_folder: Path
) -> None:
    asked: list[str] = []
    complaints: list[str] = []
    with proxied(service.url, short_folder) as proxy:
        context = browser.new_context(ignore_https_errors=True)  # it does not know who signed the certificate
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        # So that it follows the events, even where the episode is ready before the page asks for it.
        page.route("**/episodes/*", answering_with(state="queued"), times=1)
        page.goto(f"{proxy.url}#token={service.token}")
        draw_task(page, shots=1)
        adapt(page)
        (cookie,) = context.cookies()
        assert cookie["secure"]
        with page.expect_download() as download:
            page.get_by_role("link", name="Download model.onnx").click()
        assert download.value.path().stat().st_size > 1000
        page.get_by_text("Show the commands").click()
        expect(page.locator("pre").first).to_contain_text(f"curl {proxy.url}predict")
        page.goto(f"{proxy.url}docs")
        expect(page.get_by_role("heading", name="LAMANAS API")).to_be_visible()
        page.get_by_role("link", name="LAMANAS", exact=True).click()
        expect(page.get_by_label("Drawing pad")).to_be_visible()
        context.close()
    assert any(url.endswith("/events") for url in asked)
    assert [url for url in asked if not url.startswith((proxy.url, "blob:"))] == []
    # Before the token is exchanged, the page asks whether somebody is signed in.
    assert [each for each in complaints if not each.endswith("/session")] == []
