"""Service and client, which cannot import the presets, offer all of them."""

from typing import get_args, get_type_hints

from app.schemas import TrainBody
from lamanas_client.operations import TrainingOptions
from lamanas_core.config import PRESETS


def test_service_and_client_offer_all_presets() -> None:
    described = TrainBody.model_json_schema()["properties"]["preset"]["enum"]
    assert described == list(PRESETS)
    assert get_args(get_type_hints(TrainingOptions)["preset"]) == tuple(PRESETS)


def test_each_preset_has_its_own_name() -> None:
    assert {name: config.preset for name, config in PRESETS.items()} == {name: name for name in PRESETS}
