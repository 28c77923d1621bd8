"""Everybody offers the presets that there are; app and client cannot import them."""

from typing import get_args, get_type_hints

from app.schemas import TrainBody
from lamanas_client.operations import TrainingOptions
from lamanas_core.config import PRESETS, TrainingConfig


def test_service_and_client_offer_all_presets() -> None:
    described = TrainBody.model_json_schema()["properties"]["preset"]["enum"]
    assert described == list(PRESETS)
    assert get_args(get_type_hints(TrainingOptions)["preset"]) == tuple(PRESETS)


def test_each_preset_has_its_own_name() -> None:
    assert {name: config.preset for name, config in PRESETS.items()} == {name: name for name in PRESETS}


def test_the_warm_up_is_scaled_with_the_meta_training_where_only_that_is_given() -> None:
    assert TrainingConfig.from_request({"meta_epochs": 3}).warm_up_epochs == 6
    assert TrainingConfig.from_request({"meta_epochs": 3, "warm_up_epochs": 1}).warm_up_epochs == 1
    assert TrainingConfig.from_request({"meta_batch": 2}).warm_up_epochs == TrainingConfig().warm_up_epochs
