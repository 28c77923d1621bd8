"""Debian's Chromium on the real service."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.conftest import ROOT, Service, skip_unless_in_ci
from tests.waiting import PATIENCE_S

PICTURES = ROOT / "test-output" / "pictures"
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
)
PATIENCE_MS = 1000 * PATIENCE_S


# Not for the whole session: while it runs, this thread has an event loop, and other tests start their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        skip_unless_in_ci(f"{CHROMIUM} is missing: apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, service: Service) -> Iterator[Callable[..., Page]]:
    """Opens the page in a browser of its own, nobody signed in; keywords as of ``Browser.new_context``.

    In the end, no page may have met an error of its own, broken its policy or asked anybody but the service.
    """
    complaints: list[str] = []
    contexts = []

    def heard(message: ConsoleMessage) -> None:
        # The browser itself reports each refused request; tests of refusals make them.
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def asked(request: Request) -> None:
        if not request.url.startswith((service.url, "blob:")):
            complaints.append(f"asked {request.url}")

    def open_page(path: str = "/", **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", asked)
        page.goto(service.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(visit: Callable[..., Page], service: Service) -> Page:
    """The page as the printed link opens it."""
    return visit(f"/#token={service.token}")


@pytest.fixture
def keep() -> Callable[[Page, str], None]:
    """Keeps a picture of the page, all of it, under test-output/."""

    def kept(page: Page, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=PICTURES / f"{name}.png", full_page=True)

    return kept
