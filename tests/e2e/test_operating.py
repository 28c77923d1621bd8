"""The operator's view, with a real short training run."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from app.schemas.responses import Training, TrainingPage
from app.store.clients import SyncStore
from app.store.records import TrainingRecord
from lamanas_core.config import PRESETS
from lamanas_core.data.sources.glyphs import write_folders
from tests.conftest import Service, test_settings
from tests.e2e.journey import button

# A run gives way to everything else on the machine.
TRAINING_MS = 300_000
Keep = Callable[[Page, str], None]


def operate(page: Page, service: Service) -> None:
    page.get_by_role("link", name="Operate").click()
    expect(page.get_by_role("heading", name="Operate")).to_be_visible()


def test_operator_trains_a_model_activates_it_and_rolls_back(page: Page, service: Service, keep: Keep) -> None:
    write_folders(service.data_dir / "datasets" / "glyphs-to-watch", classes=8, images=4, seed=3)
    page.emulate_media(reduced_motion="reduce")
    operate(page, service)
    expect(page.get_by_role("region", name="Queues").get_by_text("on cpu since")).to_have_count(2)
    versions = page.get_by_role("region", name="Versions")
    for_drawings = versions.get_by_role("row").filter(has=page.get_by_role("cell", name="drawings", exact=True))
    expect(for_drawings).not_to_have_count(0)
    before = for_drawings.count()  # other tests may have trained some
    page.get_by_label("Data set").fill("none-such")
    button(page, "Start training").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown data set 'none-such'; available: ")
    for label, value in (("Data set", "glyphs-to-watch"), ("Meta-epochs", "2"), ("Classes", "3"), ("Images each", "1")):
        page.get_by_label(label).fill(value)
    assert page.get_by_label("Preset").locator("option").all_inner_texts() == list(PRESETS)
    page.get_by_label("Preset").select_option("tiny")
    button(page, "Start training").click()
    run = page.locator(".run").first
    expect(run.locator(".state")).to_have_text("finished", timeout=TRAINING_MS)
    expect(run.get_by_role("img", name="Training loss")).to_be_visible()
    expect(for_drawings).to_have_count(before + 1)
    keep(page, "operate-light")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()

    shipped, new = for_drawings.nth(before), for_drawings.nth(0)
    expect(new).to_contain_text("glyphs-to-watch")
    new.get_by_role("button", name="Activate").click()
    expect(new).to_contain_text("active")
    shipped.get_by_role("button", name="Roll back").click()
    expect(shipped).to_contain_text("active")
    page.reload()
    expect(page.locator(".run").first.locator(".state")).to_have_text("finished")


RUNS = re.compile(r"/train\?limit=")
MADE_UP: dict[str, Any] = {"owner": "", "dataset": "shapes", "created_at": 0.0}


def runs(*states: dict[str, Any]) -> Callable[[Route], None]:
    """Answers with runs like these."""
    records = [TrainingRecord(**MADE_UP | {"id": f"run-{at}"} | each) for at, each in enumerate(states)]
    page = TrainingPage(trainings=[Training.of(record) for record in records], next_cursor=None)
    return lambda route: route.fulfill(body=page.model_dump_json(), content_type="application/json")


def queues(**values: Any) -> Callable[[Route], None]:
    """Answers with a queue like this."""
    queue = {"name": "train", "waiting": 0, "running": 0, "workers": [], "starting": 0} | values
    return lambda route: route.fulfill(json={"queues": [queue]})


TRAINED: dict[str, Any] = {
    "state": "running",
    "options": {"preset": "serving", "meta_epochs": 30},
    "epochs": 90,
    "warm_up_epochs": 60,
    "losses": (0.9, 0.8),
    "seconds": 150.0,
    "eta_seconds": 20.0,
}


def test_many_unfinished_runs_leave_room_for_everything_else(page: Page, service: Service) -> None:
    write_folders(service.data_dir / "datasets" / "glyphs-to-cancel", classes=8, images=4, seed=3)
    for seed in range(8):
        body = {"dataset": "glyphs-to-cancel", "ways": 3, "shots": 1, "seed": seed}
        assert httpx.post(f"{service.url}/train", headers=service.headers, json=body).status_code == 202
    streams: list[str] = []
    page.on("request", lambda request: streams.append(request.url) if request.url.endswith("/events") else None)
    operate(page, service)
    expect(page.locator(".run").filter(has_text="glyphs-to-cancel")).to_have_count(8)
    other = page.context.new_page()
    other.goto(service.url)
    expect(other.get_by_label("Drawing pad")).to_be_visible()
    mine = page.locator(".run").filter(has_text="glyphs-to-cancel")
    for at in range(8):
        mine.nth(at).get_by_role("button", name="Cancel").click()
    expect(mine.locator(".state.cancelled")).to_have_count(8)
    expect(mine.get_by_role("button", name="Resume")).to_have_count(8)
    assert streams == []


@pytest.mark.parametrize(
    ("epoch", "words"),
    [(0, "warm-up, epoch 0 of 60"), (59, "warm-up, epoch 59 of 60"), (77, "meta-epoch 17 of 30")],
)
def test_run_tells_its_phase_in_the_epochs_that_were_asked_for(
    epoch: int, words: str, page: Page, service: Service
) -> None:
    page.route(RUNS, runs(TRAINED | {"epoch": epoch}))
    operate(page, service)
    expect(page.locator(".run")).to_contain_text(
        f"serving, 30 meta-epochs · {words} · 3 min of training · about 20 s left"
    )


def test_chart_counts_meta_epochs_after_the_warm_up(page: Page, service: Service) -> None:
    page.route(RUNS, runs(TRAINED | {"epoch": 77, "losses": tuple(0.9 for _ in range(77))}))
    operate(page, service)
    expect(page.locator(".curve .mid")).to_have_text(["warm-up", "1", "16", "30"])


def test_error_goes_away_when_it_is_past(page: Page, service: Service) -> None:
    (service.data_dir / "datasets").mkdir(exist_ok=True)
    for address in ("**/queues", RUNS):
        page.route(address, lambda route: route.abort())
    operate(page, service)
    expect(page.get_by_role("alert")).to_have_count(2)
    page.get_by_label("Data set").fill("none-such")
    button(page, "Start training").click()
    expect(page.get_by_role("alert").filter(has_text="unknown data set")).to_have_count(1)
    page.get_by_label("Data set").press("End")
    page.keyboard.type("s")
    for address in ("**/queues", RUNS):
        page.unroute(address)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_focus_stays_where_it_is_while_all_is_drawn_again(page: Page, service: Service) -> None:
    page.route("**/queues", queues(starting=1))
    page.route(RUNS, runs(TRAINED | {"epoch": 1}))
    operate(page, service)
    table = page.get_by_role("region", name="Queues", exact=True)
    expect(table).to_contain_text("one is starting")
    table.focus()
    page.route("**/queues", queues(waiting=7))
    expect(table).to_contain_text("none")
    expect(table).to_be_focused()
    cancel = page.get_by_role("button", name="Cancel run run-0")
    cancel.focus()
    page.route(RUNS, runs(TRAINED | {"epoch": 2}))
    expect(page.locator(".run")).to_contain_text("epoch 2 of 60")
    expect(cancel).to_be_focused()
    page.route(RUNS, runs(TRAINED | {"epoch": 90, "state": "finished"}))
    expect(page.locator(".run")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_runs_on_a_phone_and_as_axe_sees_them(
    scheme: str, visit: Callable[..., Page], service: Service, keep: Keep
) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    page = visit(f"/#token={service.token}", color_scheme=scheme, reduced_motion="reduce", **phone)
    page.route("**/queues", queues(starting=2))
    page.route(RUNS, runs(TRAINED | {"epoch": 77}, {"state": "queued"}, {"state": "failed", "error": "no such folder"}))
    page.goto(f"{service.url}/#/operate")
    expect(page.locator(".run")).to_have_count(3)
    expect(page.get_by_text("2 are starting")).to_be_visible()
    assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    keep(page, f"runs-{scheme}")


def test_who_is_no_admin_has_no_operators_view(visit: Callable[..., Page], service: Service) -> None:
    store = SyncStore.open(test_settings(service.data_dir))
    _, token = store.api_keys.create("laptop", ["episodes", "predict"])
    store.close()
    page = visit(f"/#token={token}")
    expect(page.get_by_label("Drawing pad")).to_be_visible()
    expect(page.get_by_role("link", name="Operate")).to_have_count(0)
    page.goto(f"{service.url}/#/operate")
    expect(page.get_by_label("Drawing pad")).to_be_visible()
