"""Everybody offers the presets that there are; app and client cannot import them."""

import re
from typing import get_args, get_type_hints

from app.schemas import TrainBody
from lamanas_client.operations import TrainingOptions
from lamanas_core.config import PRESETS
from tests.conftest import ROOT


def test_service_and_client_offer_all_presets() -> None:
    for offered in (get_type_hints(TrainBody), get_type_hints(TrainingOptions)):
        assert get_args(offered["preset"]) == tuple(PRESETS)


def test_each_preset_has_its_own_name() -> None:
    assert {name: config.preset for name, config in PRESETS.items()} == {name: name for name in PRESETS}


def test_the_page_offers_presets_that_there_are() -> None:
    page = (ROOT / "app" / "static" / "operate.js").read_text()
    found = re.search(r'name: "preset" }, \[(.*?)\]', page)
    assert found
    offered = re.findall(r'"(\w+)"', found[1])
    assert offered
    assert set(offered) <= PRESETS.keys()
