"""Making a task and asking about it, in a real browser, on the real service with its real worker."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from lamanas_core.artifact import Classifier
from lamanas_core.images import load
from tests.conftest import Service
from tests.e2e.files import drag_onto, packed, upload, written
from tests.e2e.journey import (
    adapt,
    answers,
    button,
    draw_task,
    group,
    load_example,
    made_episode,
    open_episode,
    pngs,
    thumb,
    until_ready,
    verdict,
)
from tests.e2e.strokes import SYMBOLS, Draw, draw, draw_with_a_finger, draw_with_a_pen, scribble


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
    page.get_by_text("See the architecture").click()
    for name in ("Normal", "Reduction"):
        graph = page.get_by_role("img", name=f"{name} cell")
        # Every edge that was kept, and those of the meta-model that it was adapted from.
        assert 0 < graph.locator(".kept").count() <= graph.locator(".was").count()


def test_a_drawing_that_is_none_of_the_classes_is_told_first(page: Page) -> None:
    draw_task(page, shots=3)
    adapt(page)
    pad = page.get_by_label("Query pad")
    scribble(page, pad)
    expect(verdict(page)).to_contain_text("None of these? Looks most like Symbol")
    button(page, "Clear").click()
    draw(page, pad, "Symbol B", seed=99)
    expect(verdict(page)).to_have_text("Symbol B")


def test_labels_that_the_other_images_contradict_are_listed(service: Service, page: Page) -> None:
    first, second, third = pngs(3, 5)
    first[4], second[4] = second[4], first[4]
    open_episode(page, service, made_episode(service, [first, second, third]))
    doubts = page.get_by_role("region", name="Doubtful labels")
    expect(doubts.get_by_role("listitem")).to_have_count(2)
    expect(doubts).to_contain_text("labelled class 0, looks more like class 1")
    expect(doubts).to_contain_text("labelled class 1, looks more like class 0")
    doubts.get_by_role("link", name="Look at the images and correct them").click()
    expect(page).to_have_url(re.compile(r"#/episodes/\w+/correct$"))


@pytest.mark.parametrize("hand", [draw_with_a_finger, draw_with_a_pen])
def test_drawing_by_touch_and_by_pen(hand: Draw, page: Page) -> None:
    draw_task(page, shots=1, draw=hand)
    button(page, "Undo").click()
    expect(thumb(page, "Symbol C", 1)).to_have_count(0)


def test_drawings_are_taken_back_one_by_one(page: Page) -> None:
    draw_task(page, shots=1)
    thumb(page, "Symbol B", 1).press("Delete")
    expect(thumb(page, "Symbol B", 1)).to_have_count(0)
    button(page, "Undo").click()
    expect(thumb(page, "Symbol B", 1)).to_be_visible()
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
        expect(thumb(page, name, 3)).to_be_visible()
    adapt(page)
    page.locator("#query-files").set_input_files([upload("q.png", drawings[3]) for drawings in images])
    expect(answers(page)).to_have_text(["Symbol A", "Symbol B"])


def test_dropped_files_and_folders_become_a_classifier_that_is_asked_by_dropping(page: Page, tmp_path: Path) -> None:
    first, second = pngs(2, 3)
    loose = written(tmp_path, {"1.png": first[0], "2.png": first[1]})
    drag_onto(page, group(page, "Symbol B"), loose)
    expect(thumb(page, "Symbol B", 2)).to_be_visible()
    written(tmp_path, {"rune/1.png": second[0], "rune/2.png": second[1]})
    drag_onto(page, page.get_by_label("Drawing pad"), [str(tmp_path / "rune")])
    expect(thumb(page, "rune", 2)).to_be_visible()
    adapt(page)
    drag_onto(page, page.get_by_label("Query pad"), written(tmp_path, {"a.png": first[2], "b.png": second[2]}))
    expect(answers(page)).to_have_text(["Symbol B", "rune"])


def test_zip_of_folders_becomes_a_classifier(page: Page) -> None:
    images = pngs(3, 3)
    files = {f"letter {number}/{shot}.png": images[number][shot] for number in range(3) for shot in range(2)}
    page.locator("#files").set_input_files([upload("letters.zip", packed(files))])
    expect(thumb(page, "letter 2", 2)).to_be_visible()
    adapt(page)
    page.locator("#query-files").set_input_files([upload("q.png", drawings[2]) for drawings in images])
    expect(answers(page)).to_have_text(["letter 0", "letter 1", "letter 2"])


def test_folder_names_the_classes(page: Page, tmp_path: Path) -> None:
    images = pngs(2, 2)
    written(tmp_path / "task", {f"rune {n}/{shot}.png": images[n][shot] for n in range(2) for shot in range(2)})
    page.locator("#folder").set_input_files(tmp_path / "task")
    expect(page.get_by_label("Name of the class")).to_have_count(2)
    for number in range(2):
        expect(thumb(page, f"rune {number}", 2)).to_be_visible()


def test_what_is_skipped_or_joined_is_told(page: Page, tmp_path: Path) -> None:
    first, second = pngs(2, 3)
    files = {"rune 10/10.png": first[0], "rune 10/2.png": first[1], "rune 9/1.png": second[0], "rune 9/.DS_Store": b""}
    written(tmp_path / "task", {f"all/train/{name}": data for name, data in files.items()})
    written(tmp_path / "task", {"all/test/rune 9/7.png": second[1], "all/plan.pdf": b"", "__MACOSX/._all": b""})
    told = "4 added, 1 skipped: task/all/plan.pdf"
    splits = "train and test are splits: the images of a class are joined"
    page.locator("#folder").set_input_files(tmp_path / "task")
    expect(page.locator(".notice li")).to_have_text([told, splits])
    names = page.get_by_label("Name of the class")
    expect(names).to_have_count(2)
    assert [names.nth(at).input_value() for at in range(2)] == ["rune 9", "rune 10"]
    expect(thumb(page, "rune 9", 2)).to_be_visible()
    written(
        tmp_path,
        {"sent/x/1.png": first[2], "sent/y/z/1.png": second[2], "sent/letters.zip": b"PK", "sent/none/.x": b""},
    )
    drag_onto(page, page.get_by_label("Drawing pad"), [str(tmp_path / "sent")])
    nested = "folders are nested: a class is named by the path of its folder, e.g. y/z"
    without = "folders without images: sent/none/"
    expect(page.locator(".notice li")).to_have_text(["2 added, 1 skipped: sent/letters.zip", without, nested])
    expect(thumb(page, "y/z", 1)).to_be_visible()


def test_example_is_learned_and_its_other_drawings_are_answered(page: Page) -> None:
    load_example(page)
    adapt(page)
    expect(page.locator(".grid li.right")).to_have_count(6)
    expect(page.get_by_text("6 of 6 correct.")).to_be_visible()


def test_refusal_is_shown_where_it_happens_in_the_services_words(page: Page) -> None:
    button(page, "Adapt").click()
    expect(page.get_by_role("alert")).to_have_text("Two classes or more need an image each.")
    good = pngs(1, 1)[0][0]
    for name, data in (("Symbol A", good), ("Symbol B", b"no image at all")):
        button(page, f"Draw {name}").click()
        page.locator("#files").set_input_files([upload("cat.png", data)])
    button(page, "Adapt").click()
    told = "images[1] (cat.png): not a PNG, JPEG, WebP, GIF, HEIC, AVIF, BMP or TIFF image"
    expect(group(page, "Symbol B").get_by_role("alert")).to_have_text(told)
    expect(page.locator(".thumb.refused")).to_have_count(1)
    thumb(page, "Symbol B", 1).press("Delete")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_address_leads_back_to_the_episode(page: Page, service: Service) -> None:
    open_episode(page, service, made_episode(service, pngs(2, 2)))
    until_ready(page)
    page.reload()
    until_ready(page)
    expect(page.get_by_role("heading", name="class 0, class 1")).to_be_visible()
    page.goto(f"{service.url}/#/episodes/{'0' * 26}")
    expect(page.get_by_role("alert")).to_have_text(f"there is no episode {'0' * 26}")


def test_downloaded_model_gives_the_pages_own_answer(page: Page, service: Service) -> None:
    images = pngs(3, 3)
    id = made_episode(service, [drawings[:2] for drawings in images])
    open_episode(page, service, id)
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download model.onnx").click()
    assert downloading.value.suggested_filename == f"{id}.onnx"
    classifier = Classifier.from_bytes(Path(downloading.value.path()).read_bytes())
    page.locator("#query-files").set_input_files([upload("q.png", drawings[2]) for drawings in images])
    queries = [load(drawings[2], classifier.image, max_pixels=10**6)[None] for drawings in images]
    expect(answers(page)).to_have_text([classifier.classes[classifier.probabilities(q)[0].argmax()] for q in queries])


def test_copied_commands_ask_the_episode(visit: Callable[..., Page], service: Service, tmp_path: Path) -> None:
    images = pngs(2, 3)
    page = visit(f"/#token={service.token}", permissions=["clipboard-read", "clipboard-write"])
    open_episode(page, service, made_episode(service, [drawings[:2] for drawings in images]))
    written(tmp_path, {"query.png": images[1][2]})
    for language, shell, said in (
        ("curl", ["bash", "-c"], '"label":"class 1"'),
        ("Python", [sys.executable, "-c"], "class 1\n"),
    ):
        copy = button(page, f"Copy as {language}")
        copy.click()
        expect(button(page, f"Copy as {language}")).to_have_count(0)
        command = page.evaluate("navigator.clipboard.readText()")
        environment = {"PATH": os.environ["PATH"], "TOKEN": service.token}
        done = subprocess.run(
            [*shell, command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert said in done.stdout, done.stdout + done.stderr


def test_deleted_episode_is_told_as_deleted(page: Page, service: Service) -> None:
    id = made_episode(service, pngs(2, 1))
    open_episode(page, service, id)
    button(page, "Delete the episode").click()
    button(page, "Delete it for good?").click()
    open_episode(page, service, id)
    expect(page.get_by_role("alert")).to_contain_text("deleted")
