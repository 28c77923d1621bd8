"""Zip files on the page: opened in the browser by the rule for folders, or left to the service; and saved tasks."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.conftest import Service
from tests.e2e.files import drag_onto, packed, sent_files, upload, written
from tests.e2e.journey import (
    adapt,
    answers,
    button,
    group,
    load_example,
    made_episode,
    open_episode,
    pngs,
    thumb,
    until_asked,
    until_ready,
)
from tests.e2e.photos import encoded, photo


def names(page: Page) -> list[str]:
    """Those of the classes, in their order."""
    return [each.input_value() for each in page.get_by_label("Name of the class").all()]


def with_limits(**limits: int) -> Callable[[Route], None]:
    """Answers as the service does, but for these limits."""

    def answer(route: Route) -> None:
        found = route.fetch()
        said = found.json()
        route.fulfill(response=found, json=said | {"limits": said["limits"] | limits})

    return answer


def test_zip_becomes_classes_by_the_rule_for_folders(page: Page) -> None:
    first, second = pngs(2, 3)
    files = {f"all/été/{number}.png": data for number, data in zip((10, 9, 1), first, strict=True)}
    files |= {"all/rune/2.png": second[0], "all/plan.pdf": b"", "__MACOSX/all/._plan.pdf": b"", "all/rune/x": second[1]}
    page.locator("#files").set_input_files([upload("all.zip", packed(files))])
    expect(thumb(page, "été", 3)).to_be_visible()
    assert names(page) == ["rune", "été"]
    expect(page.locator(".notice li")).to_have_text(["5 added, 1 skipped: all/plan.pdf"])
    sent = sent_files(page, "/episodes", lambda: button(page, "Adapt").click())
    assert sent == {"1.png": first[2], "9.png": first[1], "10.png": first[0], "2.png": second[0], "x": second[1]}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_two_zips_are_opened_at_once_and_join_their_classes(method: int, page: Page, tmp_path: Path) -> None:
    images = pngs(3, 2)
    paths = []
    for name, classes in (("one.zip", (0, 1)), ("two.zip", (1, 2))):
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            for number in classes:
                archive.writestr(f"letter {number}/{name}.png", images[number][0])
        paths.append(str(tmp_path / name))
    drag_onto(page, page.get_by_label("Drawing pad"), paths)
    expect(thumb(page, "letter 2", 1)).to_be_visible()
    assert names(page) == ["letter 0", "letter 1", "letter 2"]
    expect(thumb(page, "letter 1", 2)).to_be_visible()
    expect(page.locator(".unreadable")).to_have_count(0)


def test_zip_that_only_the_service_can_read_is_sent_as_it_is(page: Page, service: Service) -> None:
    images = pngs(2, 1)
    data = packed({"Gr__e/1.png": images[0][0], "rune/1.png": images[1][0]}).replace(b"Gr__e", "Größe".encode("cp437"))
    page.locator("#files").set_input_files([upload("old.zip", data)])
    expect(page.get_by_text("its folders are the classes")).to_be_visible()
    adapt(page)
    expect(page.get_by_role("heading", name="Größe, rune")).to_be_visible()
    page.get_by_role("link", name="Correct and grow").click()
    page.locator("#files").set_input_files([upload("old.zip", data)])
    expect(page.get_by_role("alert")).to_contain_text("old.zip: the browser cannot open this zip")


def test_damaged_image_of_a_zip_is_marked(page: Page) -> None:
    images = pngs(2, 1)
    data = packed({"a/good.png": images[0][0], "b/bad.png": images[1][0]})
    damaged = data.replace(images[1][0], b"?" * len(images[1][0]))
    page.locator("#files").set_input_files([upload("task.zip", damaged)])
    expect(thumb(page, "b", 1)).to_be_visible()
    button(page, "Adapt").click()
    expect(group(page, "b").get_by_role("alert")).to_contain_text("(bad.png): not a PNG")


def test_photos_of_a_zip_are_shrunk(page: Page) -> None:
    files = {f"{name}/big.jpg": encoded(photo(seed, 1600, 1200)) for seed, name in enumerate("ab")}
    page.locator("#files").set_input_files([upload("photos.zip", packed(files))])
    expect(page.get_by_text("2 images, 2 classes", exact=True)).to_be_visible()
    sent = sent_files(page, "/episodes", lambda: button(page, "Adapt").click())
    image = Image.open(io.BytesIO(sent["big.jpg"]))
    assert (image.format, image.size) == ("JPEG", (512, 384))


def test_queries_come_in_a_zip(page: Page, service: Service) -> None:
    images = pngs(2, 3)
    open_episode(page, service, made_episode(service, [each[:2] for each in images]))
    until_ready(page)
    files = {f"class {number}/q.png": images[number][2] for number in range(2)}
    page.locator("#query-files").set_input_files([upload("queries.zip", packed(files))])
    expect(answers(page)).to_have_text(["✓ class 0", "✓ class 1"])


def test_task_is_saved_and_opened_again(page: Page, tmp_path: Path) -> None:
    load_example(page)
    page.get_by_label("Name of the class").first.fill("one/..\\two")
    page.keyboard.press("Tab")
    with page.expect_download() as downloading:
        button(page, "Save as a zip").click()
    assert downloading.value.suggested_filename == "Three symbols, three drawings each.zip"
    saved = tmp_path / "task.zip"
    downloading.value.save_as(saved)
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        stored = [archive.read(name) for name in archive.namelist()]
    button(page, "Start over").click()
    expect(button(page, "Save as a zip")).to_be_disabled()
    page.locator("#files").set_input_files(saved)
    expect(thumb(page, "one/_._two", 3)).to_be_visible()
    assert names(page) == ["glyph 2", "glyph 3", "one/_._two"]
    sent = sent_files(page, "/episodes", lambda: button(page, "Adapt").click())
    assert set(sent.values()) <= set(stored)
    until_asked(page)


def test_class_folder_with_images_and_one_folder_is_a_class(page: Page, tmp_path: Path) -> None:
    images = pngs(1, 3)[0]
    written(tmp_path, {"cat/1.png": images[0], "cat/2.png": images[1], "cat/more/3.png": images[2]})
    drag_onto(page, page.get_by_label("Drawing pad"), [str(tmp_path / "cat")])
    expect(thumb(page, "cat", 2)).to_be_visible()
    expect(thumb(page, "more", 1)).to_be_visible()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"classes": 2}, "2 classes are accepted at most."),
        ({"shots": 2}, "glyph 1 has 3 images: 2 of a class are accepted at most."),
        ({"images": 8}, "8 images are accepted at most."),
        ({"bytes": 1000}, "The images have 1 MB: 0 MB are accepted at most."),
    ],
)
def test_limits_of_the_service_are_told_while_the_task_is_made(
    limits: dict[str, int], words: str, page: Page, service: Service
) -> None:
    page.get_by_text("Or try an example").wait_for()  # it is signed in
    page.route("**/session", with_limits(**limits))
    page.goto(f"{service.url}/")
    load_example(page)
    expect(page.locator("#hint")).to_contain_text(words)
    page.route(re.compile("/episodes$"), lambda route: pytest.fail("it was sent"))
    button(page, "Adapt").click()
    expect(page.get_by_role("alert")).to_have_text(words)
