"""One rule for folders: how names of files are read, by a table and by properties."""

import json
import os
import time
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lamanas_core import layout
from tests.conftest import ROOT

CASES: list[dict[str, Any]] = json.loads((ROOT / "tests" / "layouts.json").read_text("utf-8"))
# Names as people and programs give them: few, so that they meet again at other places.
FOLDERS = ["a", "b", "é", "e\u0301", " a", "a\u3000", "train", "Valid", "TEST", "10", "9", "👩\u200d🚀", "_unlabelled"]
NAMES = st.sampled_from([*FOLDERS, ".git", "__MACOSX", "Thumbs.db", "Icon\r"])
FILES = st.sampled_from(["1.png", "2.JPG", "10.tif", "notes.txt", "._1.png", "README", ".DS_Store", "desktop.ini"])
PATHS = st.builds(lambda folders, file: "/".join([*folders, file]), st.lists(NAMES, max_size=4), FILES)
LISTS = st.lists(PATHS, unique=True, max_size=12)


def as_table(found: layout.Layout) -> dict[str, Any]:
    """A layout as the rows of the table have it."""
    classes: dict[str, list[str]] = {}
    splits: dict[str, list[str]] = {}
    for image in found.images:
        classes.setdefault(image.label, []).append(image.path)
        if image.split is not None:
            splits.setdefault(image.split, []).append(image.path)
    lists = {
        name: list(getattr(found, name)) for name in ("unlabelled", "loose", "skipped", "empty", "splits", "joined")
    }
    notes = {"adapt": list(found.notes("adapt")), "train": list(found.notes("train"))}
    return {"classes": classes, "split_of": splits} | lists | notes


def expected(case: dict[str, Any]) -> dict[str, Any]:
    """A row with what is left out: nothing, and notes of training only where they differ from those of adapting."""
    lists: dict[str, Any] = {
        name: [] for name in ("unlabelled", "loose", "skipped", "empty", "splits", "joined", "adapt")
    }
    row = lists | {"split_of": {}} | {name: value for name, value in case.items() if name not in ("name", "paths")}
    if "train" in case and "adapt" not in case:
        row["adapt"] = None
    if "train" not in case:
        row["train"] = None if case.get("splits") else row["adapt"]
    return row


def agrees(found: dict[str, Any], case: dict[str, Any]) -> None:
    row = expected(case)
    assert found == {name: found[name] if value is None else value for name, value in row.items()}
    assert list(found["classes"]) == list(case["classes"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_folders_are_read_as_the_table_says(case: dict[str, Any]) -> None:
    agrees(as_table(layout.read(case["paths"])), case)


@given(LISTS)
def test_each_visible_file_is_an_image_of_a_class_or_told(paths: list[str]) -> None:
    found = layout.read(paths)
    placed = [image.path for image in found.images]
    assert sorted([*placed, *found.unlabelled, *found.loose, *found.skipped]) == sorted(
        path for path in paths if not layout.is_litter(path)
    )
    assert all(layout.is_image(path) for path in (*placed, *found.unlabelled, *found.loose))
    assert not any(layout.is_image(path) for path in found.skipped)
    assert placed == [path for path in paths if path in set(placed)]


@given(LISTS)
def test_labels_are_nfc_and_trimmed_and_never_hidden(paths: list[str]) -> None:
    for image in layout.read(paths).images:
        assert image.label == unicodedata.normalize("NFC", image.label)
        for part in image.label.split("/"):
            assert part == layout.trimmed(part) != ""
            assert not layout.is_litter(part)
            assert part.lower() != layout.UNLABELLED_FOLDER


@given(LISTS, st.sampled_from(["symbols", "a", "train", "x/y"]))
def test_a_wrapping_folder_changes_nothing(paths: list[str], wrapping: str) -> None:
    bare, wrapped = (layout.read(given) for given in (paths, [f"{wrapping}/{path}" for path in paths]))
    assume(bare.images)  # loose images alone would be of the class of that folder
    labels = [[(image.label, image.split) for image in found.images] for found in (bare, wrapped)]
    assert labels[0] == labels[1]


@given(LISTS)
def test_what_is_ignored_changes_nothing(paths: list[str]) -> None:
    litter = [".DS_Store", "__MACOSX/a/._1.png", "train/.ipynb_checkpoints/1.png", "b/Thumbs.db", "z/ICON\r"]
    assert layout.read([*paths, *litter]) == layout.read(paths)


@given(LISTS)
def test_either_all_images_are_of_a_split_or_none(paths: list[str]) -> None:
    found = layout.read(paths)
    assert all((image.split is None) == (not found.splits) for image in found.images)


@given(st.lists(st.text(), max_size=8))
def test_natural_order_is_an_order_of_the_same_names(names: list[str]) -> None:
    assert sorted(layout.natural(names)) == sorted(names)
    assert layout.natural(reversed(names)) == layout.natural(names)


def test_natural_order_counts() -> None:
    names = ["image 10.png", "Image 2.png", "image 1.png", "10", "9", "a", 5000 * "9"]
    assert layout.natural(names) == ("9", "10", 5000 * "9", "a", "image 1.png", "Image 2.png", "image 10.png")


def test_names_thousands_of_folders_deep_take_little_time_and_memory() -> None:
    paths = [f"{'a/' * 15_000}{name}" for name in ("b/", "c/1.png", "d/1.png")]
    tracemalloc.start()
    started = time.process_time()
    try:
        found = layout.read(paths)
        assert time.process_time() - started < 2
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert [image.label for image in found.images] == ["c", "d"]
    assert found.empty == (paths[0],)


def test_a_listing_follows_links_once_and_enters_no_hidden_folder(tmp_path: Path) -> None:
    for name in ("data/a b/1.png", "data/a/1.png", "data/.git/x.png", "elsewhere/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "circle").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "empty").mkdir()
    assert layout.listing(tmp_path / "data") == [
        "a/",
        "a/1.png",
        "a b/",
        "a b/1.png",
        "empty/",
        "linked/",
        "linked/2.png",
    ]


def test_links_of_two_folders_to_each_other_are_followed_once(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"")
        (tmp_path / name / "linked").symlink_to(tmp_path / other)
    assert layout.listing(tmp_path) == [
        "a/",
        "a/1.png",
        "a/linked/",
        "a/linked/1.png",
        "b/",
        "b/1.png",
        "b/linked/",
        "b/linked/1.png",
    ]


def test_a_file_without_suffix_whose_name_is_not_text_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/notes\xff"))).write_bytes(b"text")
    found = layout.read_folder(tmp_path)
    assert [image.path for image in found.images] == ["a/1.png"]
    assert found.skipped == ("a/notes?",)


def test_an_image_whose_name_is_not_text_is_named(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/plan\xff.pdf"))).write_bytes(b"")
    assert layout.listing(tmp_path) == ["plan?.pdf"]
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/image\xff.png"))).write_bytes(b"")
    with pytest.raises(ValueError, match=r"^image\?\.png: its name is not UTF-8 text"):
        layout.listing(tmp_path)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        layout.listing(tmp_path / "missing")
