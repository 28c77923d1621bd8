"""Photos on the page: from the clipboard and from files, and what a task of photos looks like."""

import base64
import io
import re
from collections.abc import Callable

from PIL import Image
from playwright.sync_api import Page, expect

from tests.conftest import Service
from tests.e2e.files import sent_files, upload
from tests.e2e.journey import adapt, answers, button, made_episode, open_episode, pngs, thumb, until_asked
from tests.e2e.photos import encoded, jpegs, photo
from tests.e2e.strokes import draw

Visit = Callable[..., Page]
PASTE = """async ([data, type]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({ [type]: new Blob([bytes], { type }) })]);
}"""


# ---------------------------------------------------------------------- clipboard


def copy(page: Page, data: bytes) -> None:
    """Puts a PNG file into the clipboard."""
    page.evaluate(PASTE, [base64.b64encode(data).decode(), "image/png"])


def test_image_is_pasted_into_the_class_with_the_focus_and_into_the_query(visit: Visit, service: Service) -> None:
    page = visit(f"/#token={service.token}", permissions=["clipboard-read", "clipboard-write"])
    first, second = pngs(2, 3)
    expect(button(page, "Draw Symbol B")).to_be_visible()
    copy(page, first[0])
    page.keyboard.press("Control+v")
    expect(thumb(page, "Symbol A", 1)).to_be_visible()
    button(page, "Move up: Symbol B").focus()
    copy(page, second[0])
    page.keyboard.press("Control+v")
    expect(thumb(page, "Symbol B", 1)).to_be_visible()
    # Text goes into the name as ever.
    page.evaluate("navigator.clipboard.writeText('bird')")
    page.get_by_label("Name of the class").first.click()
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+v")
    expect(page.get_by_label("Name of the class").first).to_have_value("bird")
    page.keyboard.press("Tab")
    adapt(page)
    copy(page, second[1])
    page.keyboard.press("Control+v")
    expect(answers(page)).to_have_text(["Symbol B"])


# ---------------------------------------------------------------------- files


def test_big_photos_are_shrunk_upright_and_the_rest_is_sent_as_it_is(page: Page) -> None:
    big = photo(1, 1600, 1200)
    turned = encoded(photo(2, 1200, 800), orientation=6)  # to be turned clockwise by a quarter
    small, drawing, foreign = encoded(photo(3, 300, 200)), pngs(1, 1)[0][0], b"no image at all"
    scan = Image.open(io.BytesIO(drawing)).convert("L").resize((1400, 1400), Image.Resampling.BICUBIC)
    files = {"big.jpg": encoded(big), "turned.jpg": turned, "small.jpg": small, "drawing.png": drawing}
    files |= {"scan.png": encoded(scan, "PNG"), "phone.heic": foreign}
    for name, these in (("Symbol A", list(files)[:3]), ("Symbol B", list(files)[3:])):
        page.get_by_role("button", name=re.compile(f"^(Draw|Select) {name}$")).click()
        kinds = {".jpg": "image/jpeg", ".png": "image/png", "heic": "image/heic"}
        page.locator("#files").set_input_files([upload(each, files[each], kinds[each[-4:]]) for each in these])
        expect(thumb(page, name, 3)).to_be_visible()
    arrived = sent_files(page, "/episodes", lambda: button(page, "Adapt").click())
    for name in ("small.jpg", "drawing.png", "phone.heic"):
        assert arrived[name] == files[name]
    shrunk = {name: Image.open(io.BytesIO(arrived[name])) for name in ("big.jpg", "turned.jpg", "scan.png")}
    assert {name: (image.format, image.size) for name, image in shrunk.items()} == {
        "big.jpg": ("JPEG", (512, 384)),
        "turned.jpg": ("JPEG", (341, 512)),
        "scan.png": ("PNG", (512, 512)),
    }
    # The same picture, turned: its first pixel is the original's last of the first column.
    expected = photo(2, 1200, 800).rotate(-90, expand=True).resize((8, 12), Image.Resampling.BOX)
    got = shrunk["turned.jpg"].convert("RGB").resize((8, 12), Image.Resampling.BOX)
    apart = [abs(one - other) for one, other in zip(expected.tobytes(), got.tobytes(), strict=True)]
    assert max(apart) < 30


def test_pad_gives_way_to_photos(page: Page, service: Service, keep: Callable[[Page, str], None]) -> None:
    pad = page.get_by_label("Drawing pad")
    draw(page, pad, "Symbol C", 1)
    button(page, "Add to Symbol A").click()
    expect(pad).to_be_visible()
    button(page, "Undo").click()
    for name, images in zip(("Symbol A", "Symbol B"), jpegs(2, 3), strict=True):
        page.get_by_role("button", name=re.compile(f"^(Draw|Select) {name}$")).click()
        page.locator("#files").set_input_files([upload(f"{n}.jpg", data) for n, data in enumerate(images)])
        expect(thumb(page, name, 3)).to_be_visible()
        expect(pad).to_be_hidden()
    keep(page, "task-photos")
    button(page, "Draw instead").click()
    expect(pad).to_be_focused()
    page.get_by_role("button", name="Adapt").click()
    until_asked(page)
    expect(page.get_by_label("Query pad")).to_be_hidden()
    page.locator("#query-files").set_input_files([upload("q.jpg", encoded(photo(7)))])
    expect(answers(page)).to_have_count(1)
    button(page, "Draw instead").click()
    expect(page.get_by_label("Query pad")).to_be_focused()


def test_an_example_of_photos_is_learned_as_photos(page: Page) -> None:
    page.get_by_text("Or try an example").click()
    button(page, "Three things, three photos each").click()
    expect(thumb(page, "ring", 3)).to_be_visible()
    expect(page.get_by_label("Drawing pad")).to_be_hidden()
    button(page, "Adapt").click()
    until_asked(page)
    expect(page.locator(".grid li.right")).to_have_count(6)
    expect(page.get_by_text("3 classes, 9 images, read as photos")).to_be_visible()


def test_episode_tells_its_kind_and_what_was_adapted(page: Page, service: Service) -> None:
    open_episode(page, service, made_episode(service, jpegs(2, 2)))
    expect(page.get_by_text("2 classes, 4 images, read as photos")).to_be_visible()
    expect(page.get_by_label("Query pad")).to_be_hidden()
    sees = (
        "^Of what its pretrained network sees, the .* counts most: its weight is \\d[.]\\d\\d, (as|\\d[.]\\d\\d) before"
    )
    expect(page.get_by_text(re.compile(sees))).to_be_visible()
    page.get_by_text("See the architecture").click()
    maps = page.get_by_role("region", name="Maps of the backbone").get_by_role("row")
    expect(maps).to_have_text([re.compile(start) for start in ("^MapCounts", "^14 × 14", "^7 × 7", "^next layer")])
    expect(page.get_by_role("img", name="Reduction cell")).to_have_count(0)
    page.goto(f"{service.url}/#/episodes/{made_episode(service, pngs(2, 1))}")
    expect(page.get_by_text("2 classes, 2 images, read as drawings")).to_be_visible()
    page.get_by_text("See the architecture").click()
    expect(page.get_by_role("img", name="Reduction cell")).to_be_visible()
