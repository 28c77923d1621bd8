"""The files of the playground and the reference: complete, small, and without inline code; and the examples."""

import io
import re
from base64 import b64decode
from collections import Counter

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from app.routes.pages import FOLDER
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import load
from tests.e2e import scenes

FILES = sorted(FOLDER.iterdir())
PAGES = sorted(FOLDER.glob("*.html"))


def test_page_is_under_200_kilobytes() -> None:
    assert sum(file.stat().st_size for file in FILES) < 200_000


def test_pages_and_all_linked_files_are_served_with_a_strict_policy(anonymous: TestClient) -> None:
    named = set()
    for path in ("/", "/docs"):
        page = anonymous.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert not re.search(r'(?:href|src)="/', page.text), "a proxy may serve the page below a prefix"
        named |= {f"/{name}" for name in re.findall(r'(?:href|src)="(static/[^"]+)"', page.text)}
    for module in FOLDER.glob("*.js"):
        named |= {f"/static/{name}" for name in re.findall(r'(?:from |import\()"\./([^"]+)"', module.read_text())}
    for path in named:
        answer = anonymous.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["cache-control"] == "no-cache"
        assert "unsafe" not in answer.headers["content-security-policy"]
    assert {path.removeprefix("/static/") for path in named} | {page.name for page in PAGES} == {f.name for f in FILES}


def test_page_names_the_modules_that_it_begins_with_so_that_they_are_fetched_at_once() -> None:
    needed, open_ones = {"main.js"}, ["main.js"]
    while open_ones:
        found = set(re.findall(r'from "\./([^"]+)"', (FOLDER / open_ones.pop()).read_text())) - needed
        needed |= found
        open_ones += found
    named = re.findall(r'<link rel="modulepreload" href="static/([^"]+)">', (FOLDER / "index.html").read_text())
    assert sorted(named) == sorted(needed - {"main.js"})


def test_files_of_the_page_are_sent_compressed(anonymous: TestClient) -> None:
    for name in ("main.js", "style.css"):
        answer = anonymous.get(f"/static/{name}", headers={"Accept-Encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["vary"] == "Accept-Encoding"
        assert answer.content == (FOLDER / name).read_bytes()
        again = anonymous.get(f"/static/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304


def test_pages_contain_no_inline_script_or_style_and_no_other_host() -> None:
    for page in PAGES:
        assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", page.read_text())
    for file in FILES:
        hosts = set(re.findall(r"https?://[\w.-]+", file.read_text()))
        assert hosts <= {"http://www.w3.org"}, file.name


def test_only_the_pages_own_files_are_served(anonymous: TestClient) -> None:
    for path in ("/static/../main.py", "/static/%2e%2e/main.py", "/static/none.js", "/static/"):
        answer = anonymous.get(path)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


def test_examples_are_readable_and_their_queries_have_support_classes(anonymous: TestClient) -> None:
    examples = anonymous.get("/examples").json()["examples"]
    assert len({example["title"] for example in examples}) == len(examples) >= 3
    for example in examples:
        support, queries = example["support"], example["queries"]
        assert {each["label"] for each in queries} == {each["label"] for each in support}
        assert len({each["image"] for each in support + queries}) == len(support + queries)
        for each in support + queries:
            assert load(b64decode(each["image"]), ImageSpec(), max_pixels=50_000).any()


def test_the_example_of_photos_is_of_rendered_things_and_small(anonymous: TestClient) -> None:
    [example] = [each for each in anonymous.get("/examples").json()["examples"] if each["kind"] == "photos"]
    shown = {"support": 3, "queries": 2}
    for part, count in shown.items():
        assert Counter(each["label"] for each in example[part]) == dict.fromkeys(scenes.THINGS, count)
    files = [b64decode(each["image"]) for part in shown for each in example[part]]
    assert sum(map(len, files)) < 100_000
    first = np.asarray(Image.open(io.BytesIO(files[0])), np.float32)
    assert np.abs(first - np.asarray(scenes.example(example["support"][0]["label"], 0), np.float32)).mean() < 5
