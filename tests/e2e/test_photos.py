"""Photos on the page: by the camera, from the clipboard and from files, for the task and for asking."""

import base64
import io
import itertools
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, Request, expect

from tests.conftest import Service
from tests.e2e.files import upload
from tests.e2e.journey import adapt, answers, button, group, made_episode, open_episode, pngs, thumb
from tests.e2e.photos import encoded, jpegs, photo
from tests.e2e.strokes import draw
from tests.waiting import PATIENCE_S

Visit = Callable[..., Page]
# All streams that were opened, and how many run.
WATCH_STREAMS = """
window.streams = [];
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wish) => {
  const stream = await open(wish);
  streams.push(stream);
  return stream;
};
const live = (track) => track.readyState === "live";
window.running = () => streams.flatMap((each) => each.getTracks()).filter(live).length;
"""
# Playwright shows a request without the files of its form, so the page keeps them.
CATCH_FORMS = """() => {
  const send = window.fetch;
  window.forms = {};
  window.fetch = (path, options) => {
    if (options?.body instanceof FormData) forms[path.replace(/^\\/?/, "/")] = options.body;
    return send(path, options);
  };
}"""
READ_FORM = """async (path) => {
  const files = {};
  for (const value of forms[path].values()) {
    if (!(value instanceof File)) continue;
    const bytes = new Uint8Array(await value.arrayBuffer());
    files[value.name] = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  }
  return files;
}"""
PASTE = """async ([data, type]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({ [type]: new Blob([bytes], { type }) })]);
}"""


@pytest.fixture
def with_camera(visit: Visit, service: Service) -> Callable[..., Page]:
    """The page in a browser that lets it use the camera, which is a made-up one."""

    def opened(**options: Any) -> Page:
        page = visit("/docs", permissions=["camera"], **options)
        page.add_init_script(WATCH_STREAMS)
        page.goto(f"{service.url}/#token={service.token}")
        expect(button(page, "Use the camera")).to_be_visible()
        return page

    return opened


def running(page: Page) -> int:
    return int(page.evaluate("running()"))


def camera_on(page: Page) -> None:
    button(page, "Use the camera").click()
    expect(page.locator("video")).to_have_js_property("paused", False)


def hold(page: Page, label: str, shots: int) -> None:
    """Holds the button that takes photos of a class with the mouse, until there are so many."""
    button(page, f"Hold to take photos of {label}").hover()
    page.mouse.down()
    expect(thumb(page, label, shots)).to_be_visible()
    page.mouse.up()
    page.wait_for_timeout(300)  # the last one may be under way


def shots(page: Page, label: str) -> int:
    return group(page, label).locator(".thumb").count()


def sent_files(page: Page, path: str, act: Callable[[], None]) -> dict[str, bytes]:
    """The files, by name, of the form that the page sends to this path when this is done."""
    page.evaluate(CATCH_FORMS)
    with page.expect_request(lambda request: request.url.endswith(path) and request.method == "POST"):
        act()
    found: dict[str, str] = page.evaluate(READ_FORM, path)
    return {name: base64.b64decode(data) for name, data in found.items()}


def until(page: Page, script: str, value: int) -> None:
    """Waits until the script gives this value. (The page's policy forbids ``wait_for_function`` to evaluate it.)"""
    deadline = time.monotonic() + PATIENCE_S
    while (found := page.evaluate(script)) != value:
        assert time.monotonic() < deadline, f"{script} is {found}"
        page.wait_for_timeout(20)


# ---------------------------------------------------------------------- camera


def test_photos_are_taken_while_the_button_is_held(with_camera: Callable[..., Page], service: Service) -> None:
    page = with_camera()
    camera_on(page)
    expect(page.get_by_label("Drawing pad")).to_be_hidden()
    hold(page, "Symbol A", shots=3)
    count = shots(page, "Symbol A")
    page.wait_for_timeout(500)
    assert shots(page, "Symbol A") == count
    button(page, "Camera Symbol B").click()
    hold(page, "Symbol B", shots=2)
    # What was taken in one go is one step back.
    button(page, "Undo").click()
    expect(thumb(page, "Symbol B", 1)).to_have_count(0)
    hold(page, "Symbol B", shots=1)
    files = sent_files(page, "/episodes", lambda: button(page, "Adapt").click())
    assert {Image.open(io.BytesIO(data)).format for data in files.values()} == {"JPEG"}
    assert {max(Image.open(io.BytesIO(data)).size) for data in files.values()} == {512}
    until_asked(page)


def test_photos_are_taken_several_times_a_second(with_camera: Callable[..., Page]) -> None:
    page = with_camera()
    camera_on(page)
    page.evaluate(
        "() => { window.times = []; new MutationObserver(() => times.push(performance.now()))"
        ".observe(document.querySelector('.classes'), { childList: true }); }"
    )
    hold(page, "Symbol A", shots=6)
    times = page.evaluate("times")
    pauses = sorted(later - earlier for earlier, later in itertools.pairwise(times))
    assert 100 < pauses[len(pauses) // 2] < 500


def until_asked(page: Page) -> None:
    expect(page.get_by_role("heading", name="Ask", exact=True)).to_be_visible()


def test_camera_by_keyboard(with_camera: Callable[..., Page]) -> None:
    page = with_camera()
    button(page, "Use the camera").press("Enter")
    expect(button(page, "Hold to take photos of Symbol A")).to_be_focused()
    expect(page.locator("video")).to_have_js_property("paused", False)
    page.keyboard.down("Space")
    page.keyboard.down("Space")
    expect(thumb(page, "Symbol A", 3)).to_be_visible()
    page.keyboard.up("Space")
    page.wait_for_timeout(300)
    before = shots(page, "Symbol A")
    page.wait_for_timeout(400)
    assert before == shots(page, "Symbol A")
    # A short press takes one.
    page.keyboard.press("Enter")
    expect(group(page, "Symbol A").locator(".thumb")).to_have_count(before + 1)
    button(page, "Stop the camera").press("Enter")
    expect(button(page, "Use the camera")).to_be_focused()
    assert running(page) == 0


def test_camera_runs_once_and_only_while_it_is_shown(with_camera: Callable[..., Page], service: Service) -> None:
    page = with_camera()
    camera_on(page)
    assert running(page) == 1
    button(page, "Camera Symbol B").click()
    button(page, "Camera Symbol C").click()
    assert page.evaluate("streams.length") == 1
    button(page, "Draw instead").click()
    expect(page.get_by_label("Drawing pad")).to_be_focused()
    assert running(page) == 0
    button(page, "Use the camera").click()
    until(page, "running()", 1)
    page.get_by_role("link", name="Operate").click()
    expect(page.get_by_role("heading", name="Operate")).to_be_visible()
    until(page, "running()", 0)


def test_camera_stops_in_a_hidden_tab(with_camera: Callable[..., Page]) -> None:
    page = with_camera()
    button(page, "Use the camera").click()
    until(page, "running()", 1)
    for hidden in ("true", "false"):
        page.evaluate(
            f"() => {{ Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }});"
            "document.dispatchEvent(new Event('visibilitychange')); }"
        )
        until(page, "running()", 0 if hidden == "true" else 1)


@pytest.mark.parametrize("closing", ["Draw instead", "Stop the camera"])
def test_camera_that_starts_too_late_is_stopped(with_camera: Callable[..., Page], closing: str) -> None:
    page = with_camera()
    page.evaluate(
        "() => { const open = navigator.mediaDevices.getUserMedia;"
        "navigator.mediaDevices.getUserMedia = async (wish) => {"
        "await new Promise((done) => (window.go = done)); return open(wish); } }"
    )
    button(page, "Use the camera").click()
    button(page, closing).click()
    page.evaluate("go()")
    until(page, "streams.length", 1)
    until(page, "running()", 0)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_refused_camera_is_told_in_words(visit: Visit, service: Service) -> None:
    page = visit(f"/#token={service.token}", permissions=["clipboard-read"])
    button(page, "Use the camera").click()
    expect(page.get_by_role("alert")).to_contain_text("The browser may not use the camera: allow it")
    expect(page.get_by_label("Drawing pad")).to_be_visible()
    button(page, "Use the camera").click()
    expect(page.get_by_role("alert")).to_contain_text("allow it")


@pytest.mark.parametrize(
    ("name", "words"),
    [("NotFoundError", "No camera was found."), ("NotReadableError", "another program may use it")],
)
def test_missing_or_busy_camera_is_told_in_words(page: Page, name: str, words: str) -> None:
    page.evaluate(f"() => (navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{name}')))")
    button(page, "Use the camera").click()
    expect(page.get_by_role("alert")).to_contain_text(words)


def test_camera_that_is_unplugged_is_told(with_camera: Callable[..., Page]) -> None:
    page = with_camera()
    camera_on(page)
    page.evaluate("streams[0].getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(page.get_by_role("alert")).to_have_text("The camera was disconnected.")
    expect(page.get_by_label("Drawing pad")).to_be_visible()
    assert running(page) == 0


def test_bars_follow_the_camera_at_eight_requests_a_second(with_camera: Callable[..., Page], service: Service) -> None:
    page = with_camera()
    open_episode(page, service, made_episode(service, jpegs(2, 2)))
    until_asked(page)
    asked: list[str] = []
    flying = {"now": 0, "most": 0}

    def begun(request: Request) -> None:
        if request.url.endswith("/predict"):
            asked.append(request.url)
            flying["now"] += 1
            flying["most"] = max(flying.values())

    def ended(request: Request) -> None:
        if request.url.endswith("/predict"):
            flying["now"] -= 1

    page.on("request", begun)
    page.on("requestfinished", ended)
    page.on("requestfailed", ended)
    button(page, "Use the camera").click()
    expect(page.locator(".verdict")).to_contain_text("class")
    expect(page.locator(".bars .best")).to_have_count(1)
    before = len(asked)
    page.wait_for_timeout(2000)
    assert 1 <= len(asked) - before <= 17
    assert flying["most"] == 1
    # The service is away for a moment.
    page.route("**/predict", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_contain_text("does not respond")
    expect(page.locator(".bars .best")).to_have_count(0)
    page.unroute("**/predict")
    expect(page.locator(".bars .best")).to_have_count(1)
    expect(page.get_by_role("alert")).to_have_count(0)
    button(page, "Stop the camera").click()
    page.wait_for_timeout(300)
    before = len(asked)
    page.wait_for_timeout(700)
    assert len(asked) == before
    assert running(page) == 0


def test_what_the_camera_shows_is_taught(with_camera: Callable[..., Page], service: Service) -> None:
    page = with_camera()
    id = made_episode(service, jpegs(2, 1))
    open_episode(page, service, id)
    until_asked(page)
    button(page, "Use the camera").click()
    page.get_by_label("What it is").select_option("class 1")
    files = sent_files(page, f"/episodes/{id}/support", lambda: button(page, "Add it and adapt again").click())
    assert list(files) == ["photo.jpg"]
    expect(page.get_by_text("2 classes, 3 images")).to_be_visible()


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


def test_episode_tells_its_kind_and_what_was_adapted(page: Page, service: Service) -> None:
    open_episode(page, service, made_episode(service, jpegs(2, 2)))
    expect(page.get_by_text("2 classes, 4 images, read as photos")).to_be_visible()
    expect(page.get_by_label("Query pad")).to_be_hidden()
    maps = page.get_by_role("region", name="Maps of the backbone").get_by_role("row")
    expect(maps).to_have_text([re.compile(start) for start in ("^MapCounts", "^14 × 14", "^7 × 7", "^next layer")])
    expect(page.get_by_role("img", name="Reduction cell")).to_have_count(0)
    page.goto(f"{service.url}/#/episodes/{made_episode(service, pngs(2, 1))}")
    expect(page.get_by_text("2 classes, 2 images, read as drawings")).to_be_visible()
    expect(page.get_by_role("img", name="Reduction cell")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_camera_on_a_phone_and_as_axe_sees_it(
    scheme: str, with_camera: Callable[..., Page], service: Service, keep: Callable[[Page, str], None]
) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    page = with_camera(color_scheme=scheme, reduced_motion="reduce", **phone)

    def check(name: str) -> None:
        assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        keep(page, f"{name}-{scheme}")

    button(page, "Use the camera").click()
    for name in ("Symbol A", "Symbol B"):
        button(page, f"Camera {name}").click()
        hold(page, name, shots=1)
    check("camera-task")
    button(page, "Stop the camera").click()
    check("photos-task")
    button(page, "Adapt").click()
    until_asked(page)
    check("photos-ask")
    button(page, "Use the camera").click()
    expect(page.locator(".bars .best")).to_have_count(1)
    check("camera-ask")
