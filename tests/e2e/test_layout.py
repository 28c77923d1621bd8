"""The page reads folders by the same rule as the service: by the table of cases, and as Python does."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from playwright.sync_api import Browser

from lamanas_core import layout
from tests.conftest import ROOT
from tests.test_layout import CASES, LISTS, agrees, as_table

Read = Callable[[list[str]], dict[str, Any]]


@pytest.fixture(scope="module")
def read(browser: Browser) -> Iterator[Read]:
    """The page's function, with its result as the rows of the table have it."""
    source = (ROOT / "app" / "static" / "layout.js").read_text("utf-8")
    page = browser.new_page()
    page.evaluate(
        "async (source) => (globalThis.rule = await import(URL.createObjectURL("
        "new Blob([source], { type: 'text/javascript' }))))",
        source,
    )

    def read(paths: list[str]) -> dict[str, Any]:
        script = "(paths) => { const found = rule.read(paths); return { ...found, adapt: rule.notes(found) }; }"
        found: dict[str, Any] = page.evaluate(script, paths)
        classes: dict[str, list[str]] = {}
        splits: dict[str, list[str]] = {}
        for image in found.pop("images"):
            classes.setdefault(image["label"], []).append(image["path"])
            if image["split"] is not None:
                splits.setdefault(image["split"], []).append(image["path"])
        return {"classes": classes, "split_of": splits, "train": None} | found

    yield read
    page.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_page_reads_folders_as_the_table_says(case: dict[str, Any], read: Read) -> None:
    agrees(read(case["paths"]) | {"train": case.get("train")}, case | ({"train": None} if "train" not in case else {}))


def test_the_page_knows_the_images_and_the_litter_that_the_service_knows(read: Read) -> None:
    images = [f"a/1.{suffix}" for suffix in sorted(layout.IMAGE_SUFFIXES)]
    paths = [*images, *(f"a/{name}/1.png" for name in sorted(layout.LITTER))]
    found = read(paths)
    assert found["classes"] == {"a": images}
    assert found == as_table(layout.read(paths)) | {"train": None}


@given(LISTS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_page_reads_folders_as_the_service_does(read: Read, paths: list[str]) -> None:
    assert json.loads(json.dumps(read(paths))) == as_table(layout.read(paths)) | {"train": None}
