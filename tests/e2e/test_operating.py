"""The operator's view, with a real short training run."""

from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.store.clients import SyncStore
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
    expect(for_drawings).to_have_count(1)
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
    expect(for_drawings).to_have_count(2)
    keep(page, "operate-light")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()

    old, new = for_drawings.nth(1), for_drawings.nth(0)
    expect(new).to_contain_text("glyphs-to-watch")
    new.get_by_role("button", name="Activate").click()
    expect(new).to_contain_text("active")
    old.get_by_role("button", name="Roll back").click()
    expect(old).to_contain_text("active")
    page.reload()
    expect(page.locator(".run").first.locator(".state")).to_have_text("finished")


def test_who_is_no_admin_has_no_operators_view(visit: Callable[..., Page], service: Service) -> None:
    store = SyncStore.open(test_settings(service.data_dir))
    _, token = store.api_keys.create("laptop", ["episodes", "predict"])
    store.close()
    page = visit(f"/#token={token}")
    expect(page.get_by_label("Drawing pad")).to_be_visible()
    expect(page.get_by_role("link", name="Operate")).to_have_count(0)
    page.goto(f"{service.url}/#/operate")
    expect(page.get_by_label("Drawing pad")).to_be_visible()
