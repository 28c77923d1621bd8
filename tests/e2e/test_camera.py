"""The camera on the page: photos for the task, and for asking."""

import io
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, Request, expect

from tests.conftest import Service
from tests.e2e.files import sent_files
from tests.e2e.journey import button, group, hide, made_episode, open_episode, thumb, until_asked
from tests.e2e.photos import jpegs
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
    """Holds the button that takes photos of a class with the mouse, until there are so many, the last one too."""
    taking = button(page, f"Hold to take photos of {label}")
    taking.hover()
    page.mouse.down()
    expect(thumb(page, label, shots)).to_be_visible()
    page.mouse.up()
    expect(taking).not_to_have_attribute("data-held", "")


def shots(page: Page, label: str) -> int:
    return group(page, label).locator(".thumb").count()


def until(page: Page, script: str, value: int) -> None:
    """Waits until the script gives this value. (The page's policy forbids ``wait_for_function`` to evaluate it.)"""
    deadline = time.monotonic() + PATIENCE_S
    while (found := page.evaluate(script)) != value:
        assert time.monotonic() < deadline, f"{script} is {found}"
        page.wait_for_timeout(20)


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


def test_camera_by_keyboard(with_camera: Callable[..., Page]) -> None:
    page = with_camera()
    button(page, "Use the camera").press("Enter")
    expect(button(page, "Hold to take photos of Symbol A")).to_be_focused()
    expect(page.locator("video")).to_have_js_property("paused", False)
    page.keyboard.down("Space")
    page.keyboard.down("Space")
    expect(thumb(page, "Symbol A", 3)).to_be_visible()
    page.keyboard.up("Space")
    expect(button(page, "Hold to take photos of Symbol A")).not_to_have_attribute("data-held", "")
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
    for hidden in (True, False):
        hide(page, hidden=hidden)
        until(page, "running()", 0 if hidden else 1)


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
