"""Images without a label on the page: given, seen, taken back, sent, corrected, saved and opened again."""

import re
import zipfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.conftest import Service
from tests.e2e.files import drag_onto, packed, upload, written
from tests.e2e.journey import (
    adapt,
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
from tests.e2e.photos import encoded, photo
from tests.e2e.strokes import draw
from tests.e2e.test_correcting import episode, shown

NAME = "Unlabelled"


def give(page: Page, *files: Any) -> None:
    page.locator("#unlabelled-files").set_input_files(list(files))


def test_whatever_is_dropped_there_is_sent_without_a_label(page: Page, service: Service, tmp_path: Path) -> None:
    load_example(page)
    first, second = pngs(2, 3)
    names = ["mixed/a/1.png", "mixed/b/2.png", "mixed/3.png", "mixed/notes.txt"]
    written(tmp_path, dict(zip(names, [first[0], second[0], first[1], b"text"], strict=True)))
    (tmp_path / "more.zip").write_bytes(packed({"a/1.png": second[1], "b/2.png": second[2]}))
    drag_onto(page, group(page, NAME), [str(tmp_path / "mixed"), str(tmp_path / "more.zip")])
    expect(group(page, NAME).get_by_role("heading")).to_have_text("Unlabelled: 5")
    expect(page.locator("#hint")).to_have_text("9 images, 3 classes, 5 without a label")
    expect(page.locator(".notice li")).to_have_text(["3 added, 1 skipped: mixed/notes.txt"])
    thumb(page, NAME, 5).press("Delete")
    adapt(page)
    expect(page.get_by_text("3 classes, 9 images, 4 without a label")).to_be_visible()
    assert episode(service, shown(page))["unlabelled"] == 4
    page.get_by_role("link", name="← The task").click()
    expect(page.locator(".recent li").first).to_contain_text("3 classes, 9 images, 4 without a label, ready")
    button(page, f"Remove all: {NAME}").click()
    expect(page.locator("#hint")).to_have_text("9 images, 3 classes")
    button(page, "Undo").click()
    expect(thumb(page, NAME, 4)).to_be_visible()


def test_drawings_and_pasted_files_need_no_label(page: Page) -> None:
    button(page, f"Draw {NAME}").click()
    for number in (1, 2):
        draw(page, page.get_by_label("Drawing pad"), "Symbol A", number)
        button(page, f"Add to {NAME}").click()
        expect(thumb(page, NAME, number)).to_be_visible()
    # With it selected, loose files go there, too, and folders still name classes.
    images = pngs(1, 2)[0]
    page.locator("#files").set_input_files([upload("x.png", images[0])])
    expect(thumb(page, NAME, 3)).to_be_visible()
    page.locator("#files").set_input_files([upload("a.zip", packed({"rune/1.png": images[1]}))])
    expect(thumb(page, "rune", 1)).to_be_visible()
    expect(thumb(page, NAME, 4)).to_have_count(0)
    expect(page.locator("#hint")).to_contain_text("1 image, 1 class, 3 without a label. One more class needs an image.")


def test_photos_without_a_label_leave_the_pad_to_classes_that_are_drawn(page: Page) -> None:
    load_example(page)
    give(page, upload("photo.jpg", encoded(photo(1))))
    expect(thumb(page, NAME, 1)).to_be_visible()
    expect(page.get_by_label("Drawing pad")).to_be_visible()


def test_one_gets_a_label_before_anything_is_sent(page: Page) -> None:
    load_example(page)
    give(page, upload("x.png", pngs(1, 1)[0][0]))
    thumb(page, NAME, 1).click()
    page.get_by_label(f"Move {NAME}, image 1 to").select_option("glyph 2")
    expect(thumb(page, "glyph 2", 4)).to_be_visible()
    expect(group(page, NAME).get_by_role("heading")).to_have_text(NAME)


def test_a_pick_among_many_leaves_them_where_they_were_scrolled_to(page: Page) -> None:
    give(page, *(upload(f"{number:02}.png", data) for number, data in enumerate(pngs(1, 50)[0])))
    thumb(page, NAME, 50).scroll_into_view_if_needed()
    place = group(page, NAME).locator(".thumbs")
    before = place.evaluate("(element) => element.scrollTop")
    assert before > 0
    # In the middle, where its focus alone would leave them otherwise.
    thumb(page, NAME, 34).click()
    expect(thumb(page, NAME, 34)).to_have_attribute("aria-pressed", "true")
    assert place.evaluate("(element) => element.scrollTop") == before


def test_those_of_an_episode_are_labelled_removed_and_joined_by_others(page: Page, service: Service) -> None:
    first, second = pngs(2, 5)
    old = made_episode(service, [first[:2], second[:2]], unlabelled=[first[2], second[2], second[3]])
    open_episode(page, service, old)
    until_ready(page)
    page.route(re.compile(f"/episodes/{old}$"), answering_with(unlabelled_belonging=0.62))
    page.reload()
    belonging = "of which about 62\u00a0% seem to belong to the classes"
    expect(page.get_by_text(f"2 classes, 4 images, 3 without a label, {belonging}")).to_be_visible()
    page.get_by_role("link", name="Correct and grow").click()
    thumb(page, NAME, 1).click()
    page.get_by_label(f"Move {NAME}, image 1 to").select_option("class 0")
    thumb(page, NAME, 1).press("Delete")
    give(page, upload("x.png", first[4]), upload("y.png", second[4]))
    expect(thumb(page, NAME, 3)).to_be_visible()
    button(page, "Adapt again").click()
    until_ready(page)
    child = episode(service, shown(page))
    assert (child["shots"], child["unlabelled"]) == ({"class 0": 3, "class 1": 2}, 3)
    assert episode(service, old)["unlabelled"] == 3


def test_one_that_the_service_refuses_is_marked(page: Page) -> None:
    load_example(page)
    give(page, upload("good.png", pngs(1, 1)[0][0]), upload("bad.png", b"no image at all"))
    expect(thumb(page, NAME, 2)).to_be_visible()
    button(page, "Adapt").click()
    expect(group(page, NAME).get_by_role("alert")).to_contain_text("unlabelled[0] (bad.png)")
    expect(page.locator(".thumb.refused")).to_have_attribute("aria-label", f"{NAME}, image 1")


def test_they_are_saved_in_the_zip_and_opened_again(page: Page, tmp_path: Path) -> None:
    load_example(page)
    page.get_by_label("Name of the class").first.fill("_unlabelled")
    page.keyboard.press("Tab")
    data = pngs(1, 1)[0][0]
    give(page, upload("x.png", data))
    with page.expect_download() as downloading:
        button(page, "Save as a zip").click()
    downloading.value.save_as(tmp_path / "task.zip")
    with zipfile.ZipFile(tmp_path / "task.zip") as archive:
        assert [name for name in archive.namelist() if not name.startswith(("glyph", "__"))] == ["_unlabelled/001.png"]
        assert archive.read("_unlabelled/001.png") == data
    button(page, "Start over").click()
    expect(group(page, NAME).get_by_role("heading")).to_have_text(NAME)
    page.locator("#files").set_input_files(tmp_path / "task.zip")
    expect(thumb(page, "__unlabelled", 3)).to_be_visible()
    expect(thumb(page, NAME, 1)).to_be_visible()
    expect(page.locator("#hint")).to_have_text("9 images, 3 classes, 1 without a label")


def test_they_are_there_again_after_a_reload(page: Page) -> None:
    load_example(page)
    give(page, upload("x.png", pngs(1, 1)[0][0]))
    expect(thumb(page, NAME, 1)).to_be_visible()
    page.wait_for_function(
        """async () => {
          const open = indexedDB.open("lamanas", 1);
          await new Promise((done) => (open.onsuccess = done));
          const get = open.result.transaction("tasks").objectStore("tasks").get("task");
          await new Promise((done) => (get.onsuccess = done));
          return get.result?.unlabelled.length === 1;
        }"""
    )
    page.reload()
    expect(page.get_by_text("Your task from before was restored.")).to_be_visible()
    expect(thumb(page, NAME, 1)).to_be_visible()


def test_those_of_a_folder_of_queries_are_asked_about(page: Page, service: Service) -> None:
    images = pngs(2, 3)
    open_episode(page, service, made_episode(service, [each[:2] for each in images]))
    until_ready(page)
    files = {"class 0/q.png": images[0][2], "_unlabelled/q.png": images[1][2]}
    page.locator("#query-files").set_input_files([upload("queries.zip", packed(files))])
    expect(answers(page)).to_have_count(2)
    assert set(answers(page).all_text_contents()) == {"✓ class 0", "class 1"}
