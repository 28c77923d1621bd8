"""Renews the README's pictures of the page: ``python -m tests.e2e.readme_pictures`` writes them to docs/pictures."""

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.conftest import ROOT, Service, serve_process, until_serving
from tests.e2e import scenes
from tests.e2e.conftest import ARGUMENTS, CHROMIUM, PATIENCE_MS
from tests.e2e.files import drag_onto, upload, written
from tests.e2e.journey import adapt, button, draw_task, thumb, until_asked, verdict
from tests.e2e.photos import encoded
from tests.e2e.strokes import draw
from tests.waiting import PATIENCE_S

FOLDER = ROOT / "docs" / "pictures"
WIDE, HIGH = 1000, 840
COLOURS = 128


def save(data: bytes, name: str) -> None:
    """As a PNG file of few colours, which is a third as large."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(FOLDER / f"{name}.png", optimize=True)


def window(page: Page, name: str, top: Locator | None = None) -> None:
    """What the window shows, scrolled to the element or to the top."""
    if top is None:
        page.evaluate("scrollTo(0, 0)")
    else:
        top.evaluate("(element) => scrollTo(0, element.getBoundingClientRect().top + scrollY - 16)")
    save(page.screenshot(), name)


def photos(page: Page, folder: Path) -> None:
    """A task of photos, and one more photo that it classifies."""
    for thing in scenes.THINGS:
        written(folder, {f"things/{thing}/{n}.jpg": encoded(scenes.photo(thing, n)) for n in range(5)})
    drag_onto(page, page.get_by_label("Drawing pad"), [str(folder / "things")])
    for thing in scenes.THINGS:
        expect(thumb(page, thing, 5)).to_be_visible()
    window(page, "photos-task")
    button(page, "Adapt").click()
    until_asked(page)
    files = [upload(f"{thing}.jpg", encoded(scenes.photo(thing, 10 + n))) for thing in scenes.THINGS for n in range(2)]
    page.locator("#query-files").set_input_files(files)
    expect(page.locator(".grid li strong")).to_have_count(len(files))
    window(page, "photos-ask", page.locator(".page"))


def drawings(page: Page) -> None:
    """A task of drawings from the first stroke to its correction."""
    draw_task(page, shots=3)
    draw(page, page.get_by_label("Drawing pad"), "Symbol C", 9)
    window(page, "task")
    button(page, "Clear").click()
    adapt(page)
    draw(page, page.get_by_label("Query pad"), "Symbol B", 99)
    expect(verdict(page)).to_have_text("Symbol B")
    window(page, "ask", page.locator(".page"))
    page.get_by_text("See the architecture").click()
    save(page.get_by_role("figure").filter(has_text="Reduction cell").screenshot(), "cells")
    page.get_by_role("link", name="Correct and grow").click()
    thumb(page, "Symbol A", 2).click()
    expect(button(page, "Remove Symbol A, image 2")).to_be_visible()
    window(page, "correct")


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="lam-"))
    process = serve_process(folder / "data")
    try:
        service: Service = until_serving(process, folder / "data")
        expect.set_options(timeout=PATIENCE_MS)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
            for make in (lambda page: photos(page, folder), drawings):
                context = browser.new_context(
                    viewport={"width": WIDE, "height": HIGH}, reduced_motion="reduce", color_scheme="light"
                )
                context.set_default_timeout(PATIENCE_MS)
                page = context.new_page()
                page.goto(f"{service.url}/#token={service.token}")
                expect(page.get_by_label("Drawing pad")).to_be_visible()
                make(page)
                context.close()
            browser.close()
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
