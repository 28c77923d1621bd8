"""The playground in a real browser, on the real service with its real worker."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from lamanas_core.artifact import Classifier
from lamanas_core.images import load
from tests.conftest import Service
from tests.e2e.journey import adapt, button, draw_task, made_episode, pngs, until_ready, upload
from tests.e2e.strokes import SYMBOLS, draw


def verdict(page: Page) -> Locator:
    return page.locator(".verdict")


def answers(page: Page) -> Locator:
    """What was said of each file that was asked about, in their order."""
    return page.locator(".grid li strong")


def test_three_drawn_symbols_are_told_apart(page: Page) -> None:
    draw_task(page, shots=3)
    adapt(page)
    pad = page.get_by_label("Query pad")
    for symbol in SYMBOLS:
        button(page, "Clear").click()
        draw(page, pad, symbol, seed=99)
        expect(verdict(page)).to_have_text(symbol)
        expect(page.locator(".bars .best .name")).to_have_text(symbol)
    expect(page.get_by_role("img", name="Learned loss")).to_be_visible()
    for name in ("Normal", "Reduction"):
        expect(page.get_by_role("img", name=f"{name} cell")).to_be_visible()


def test_drawings_are_taken_back_one_by_one(page: Page) -> None:
    draw_task(page, shots=1)
    button(page, "Remove Symbol B, image 1").click()
    expect(page.get_by_label("Remove Symbol B, image 1")).to_have_count(0)
    button(page, "Undo").click()
    expect(page.get_by_label("Remove Symbol B, image 1")).to_be_visible()
    button(page, "Delete class: Symbol C").click()
    expect(page.get_by_label("Name of the class")).to_have_count(2)
    button(page, "Move up: Symbol B").click()
    expect(page.get_by_label("Name of the class").first).to_have_value("Symbol B")
    page.keyboard.press("Control+z")
    expect(page.get_by_label("Name of the class").first).to_have_value("Symbol A")
    button(page, "Start over").click()
    expect(page.get_by_text("Two classes or more need an image each.")).to_be_visible()


def test_chosen_files_become_a_classifier_that_answers_for_files(page: Page) -> None:
    images = pngs(2, 4)
    for name, drawings in zip(("Symbol A", "Symbol B"), images, strict=True):
        button(page, f"Draw {name}").click()
        page.locator("#files").set_input_files([upload(f"{n}.png", data) for n, data in enumerate(drawings[:3])])
        expect(page.get_by_label(f"Remove {name}, image 3")).to_be_visible()
    adapt(page)
    page.locator("#query-files").set_input_files([upload("q.png", drawings[3]) for drawings in images])
    expect(answers(page)).to_have_text(["Symbol A", "Symbol B"])


def test_zip_of_folders_becomes_a_classifier(page: Page) -> None:
    images = pngs(3, 3)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, drawings in enumerate(images):
            for shot, data in enumerate(drawings[:2]):
                archive.writestr(f"letter {number}/{shot}.png", data)
    page.locator("#files").set_input_files([upload("letters.zip", packed.getvalue())])
    expect(page.get_by_text("letters.zip")).to_be_visible()
    adapt(page)
    page.locator("#query-files").set_input_files([upload("q.png", drawings[2]) for drawings in images])
    expect(answers(page)).to_have_text(["letter 0", "letter 1", "letter 2"])


def test_folder_names_the_classes(page: Page, tmp_path: Path) -> None:
    for number, drawings in enumerate(pngs(2, 2)):
        folder = tmp_path / "task" / f"rune {number}"
        folder.mkdir(parents=True)
        for shot, data in enumerate(drawings):
            (folder / f"{shot}.png").write_bytes(data)
    page.locator("#folder").set_input_files(tmp_path / "task")
    expect(page.get_by_label("Name of the class")).to_have_count(2)
    for number in range(2):
        expect(page.get_by_label(f"Remove rune {number}, image 2")).to_be_visible()


def test_example_is_learned_and_its_other_drawings_are_answered(page: Page) -> None:
    page.get_by_label("Load an example task").select_option(label="Three symbols, three drawings each")
    expect(page.get_by_label("Remove glyph 3, image 3")).to_be_visible()
    adapt(page)
    expect(page.locator(".grid li.right")).to_have_count(6)
    expect(page.get_by_role("table").first).to_contain_text("6 of 6 right")


def test_refusal_is_shown_where_it_happens_in_the_services_words(page: Page) -> None:
    button(page, "Adapt").click()
    expect(page.get_by_role("alert")).to_have_text("Two classes or more need an image each.")
    good = pngs(1, 1)[0][0]
    for name, data in (("Symbol A", good), ("Symbol B", b"no image at all")):
        button(page, f"Draw {name}").click()
        page.locator("#files").set_input_files([upload("cat.png", data)])
    button(page, "Adapt").click()
    expect(page.get_by_role("alert")).to_have_text("images[1] (cat.png): not a PNG, JPEG, WebP or GIF image")
    button(page, "Remove Symbol B, image 1").click()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_address_leads_back_to_the_episode(page: Page, service: Service) -> None:
    expect(button(page, "Adapt")).to_be_visible()
    id = made_episode(service, pngs(2, 2))
    page.goto(f"{service.url}/#/episodes/{id}")
    until_ready(page)
    page.reload()
    until_ready(page)
    expect(page.get_by_role("heading", name="class 0, class 1")).to_be_visible()
    page.goto(f"{service.url}/#/episodes/{'0' * 26}")
    expect(page.get_by_role("alert")).to_have_text(f"there is no episode {'0' * 26}")


def test_downloaded_model_gives_the_pages_own_answer(page: Page, service: Service) -> None:
    images = pngs(3, 3)
    id = made_episode(service, [drawings[:2] for drawings in images])
    expect(button(page, "Adapt")).to_be_visible()
    page.goto(f"{service.url}/#/episodes/{id}")
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download model.onnx").click()
    assert downloading.value.suggested_filename == f"{id}.onnx"
    classifier = Classifier.from_bytes(Path(downloading.value.path()).read_bytes())
    page.locator("#query-files").set_input_files([upload("q.png", drawings[2]) for drawings in images])
    queries = [load(drawings[2], classifier.image, max_pixels=10**6)[None] for drawings in images]
    expect(answers(page)).to_have_text([classifier.classes[classifier.probabilities(q)[0].argmax()] for q in queries])


def test_deleted_episode_is_told_as_deleted(page: Page, service: Service) -> None:
    expect(button(page, "Adapt")).to_be_visible()
    id = made_episode(service, pngs(2, 1))
    page.goto(f"{service.url}/#/episodes/{id}")
    button(page, "Delete the episode").click()
    button(page, "Delete it for good?").click()
    expect(button(page, "Adapt")).to_be_visible()
    page.goto(f"{service.url}/#/episodes/{id}")
    expect(page.get_by_role("alert")).to_contain_text("deleted")


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
        expect(page.get_by_label(f"Remove {symbol}, image 1")).to_be_visible()
    go_to(button(page, "Adapt"))
    page.keyboard.press("Enter")
    go_to(page.get_by_label("Query pad"))
    stroke(*signs["Symbol B"])
    expect(verdict(page)).to_have_text("Symbol B")


def test_phone_shows_everything_without_scrolling_sideways(visit: Callable[..., Page], service: Service) -> None:
    page = visit(f"/#token={service.token}", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    too_wide = "document.documentElement.scrollWidth > window.innerWidth"
    draw_task(page, shots=1)
    assert not page.evaluate(too_wide)
    adapt(page)
    draw(page, page.get_by_label("Query pad"), "Symbol B", seed=7)
    expect(verdict(page)).to_have_text("Symbol B")
    assert not page.evaluate(too_wide)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme: str, visit: Callable[..., Page], service: Service) -> None:
    def check() -> None:
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()

    # A colour that is half way to another has no contrast to speak of.
    page = visit("/", color_scheme=scheme, reduced_motion="reduce")
    expect(page.get_by_label("Token")).to_be_visible()
    check()
    page.goto(f"{service.url}/#token={service.token}")
    page.get_by_label("Load an example task").select_option(label="Three symbols, three drawings each")
    expect(page.get_by_label("Remove glyph 3, image 3")).to_be_visible()
    check()
    adapt(page)
    expect(page.locator(".grid li.right")).to_have_count(6)
    for table in page.get_by_text("As a table").all():
        table.click()
    check()
