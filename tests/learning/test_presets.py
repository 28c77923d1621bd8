"""Service and client, which cannot import the presets, offer all of them."""

from dataclasses import replace
from typing import get_args, get_type_hints

import pytest

from app.schemas.requests import TrainBody
from lamanas_client.operations import TrainingOptions
from lamanas_core.config import PRESETS, TrainingConfig
from lamanas_core.image_spec import ImageSpec


def test_service_and_client_offer_all_presets() -> None:
    described = TrainBody.model_json_schema()["properties"]["preset"]["enum"]
    assert described == list(PRESETS)
    assert get_args(get_type_hints(TrainingOptions)["preset"]) == tuple(PRESETS)


def test_each_preset_has_its_own_name() -> None:
    assert {name: config.preset for name, config in PRESETS.items()} == {name: name for name in PRESETS}


def test_the_warm_up_is_scaled_with_the_meta_training_if_only_that_is_given() -> None:
    assert TrainingConfig.from_request({"meta_epochs": 3}).warm_up_epochs == 6
    assert TrainingConfig.from_request({"meta_epochs": 3, "warm_up_epochs": 1}).warm_up_epochs == 1
    assert TrainingConfig.from_request({"meta_batch": 2}).warm_up_epochs == TrainingConfig().warm_up_epochs


@pytest.mark.parametrize("preset", PRESETS)
def test_a_linear_head_has_as_many_classes_as_asked_for(preset: str) -> None:
    network = PRESETS[preset].network
    asked = TrainingConfig.from_request({"preset": preset, "ways": 10}).model_config().network
    assert asked == (replace(network, ways=10) if network.head == "linear" else network)
    assert TrainingConfig.from_request({"preset": preset}).model_config().network == network
    assert TrainingConfig(preset).model_config().network == network


def test_a_run_starts_from_a_meta_model_or_from_a_pretrained_stem() -> None:
    assert TrainingConfig.from_request({"start": "shipped"}).pretrained is None
    assert TrainingConfig.from_request({"pretrained": "resnet18.safetensors"}).start is None
    with pytest.raises(ValueError, match="start and pretrained are mutually exclusive"):
        TrainingConfig.from_request({"start": "shipped", "pretrained": "resnet18.safetensors"})


@pytest.mark.parametrize("preset", PRESETS)
def test_rotations_are_classes_by_default_only_for_drawings(preset: str) -> None:
    expected = preset not in ("rgb84", "photos")
    assert PRESETS[preset].network.image.drawings is expected
    assert TrainingConfig.from_request({"preset": preset}).rotations is expected
    assert TrainingConfig.from_request({"preset": preset, "rotations": not expected}).rotations is not expected


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("drawings", [True, False])
def test_drawings_may_be_in_colour_and_photos_in_grey(
    channels: int, drawings: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = ImageSpec(channels=channels, normalise_polarity=drawings)
    other = replace(PRESETS["tiny"], network=replace(PRESETS["tiny"].network, image=image))
    monkeypatch.setitem(PRESETS, "tiny", other)
    assert TrainingConfig.from_request({"preset": "tiny"}).rotations is drawings
