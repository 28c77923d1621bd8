"""Recipes are stored in model cards and read back from JSON."""

import json
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from lamanas_core.meta_model import shipped
from lamanas_core.recipe import Recipe


def test_the_shipped_models_card_contains_the_default_recipe() -> None:
    _, card = shipped()
    assert Recipe.from_json(card["recipe"]) == Recipe()


def changed(part: Any) -> Any:
    """``part`` of a recipe with every number changed."""
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{one.name: changed(getattr(part, one.name)) for one in fields(part)})
    if isinstance(part, tuple):
        return tuple(changed(one) for one in part)
    return 1 if part is None else part + 1


def test_a_recipe_is_read_back_from_json_with_every_number() -> None:
    other = changed(Recipe())
    assert other != Recipe()
    assert Recipe.from_json(json.loads(json.dumps(other.to_json()))) == other


def test_a_recipe_from_before_the_warm_up_had_its_own_threshold_is_read_back() -> None:
    document = Recipe().to_json()
    del document["warm_up"]["threshold"]
    assert Recipe.from_json(document) == Recipe()


def test_a_recipe_from_before_novelty_had_a_threshold_is_read_back() -> None:
    document = Recipe().to_json()
    del document["calibration"]["novelty_shots"], document["calibration"]["called_unknown"]
    assert Recipe.from_json(document) == Recipe()


def test_a_recipe_with_an_unknown_or_a_missing_number_is_refused() -> None:
    document = Recipe().to_json()
    del document["warm_up"]["pressure"]
    with pytest.raises(TypeError, match="WarmUp lacks pressure"):
        Recipe.from_json(document)
    document = Recipe().to_json()
    document["maml"]["momentum"] = 0.9
    with pytest.raises(TypeError, match="momentum"):
        Recipe.from_json(document)
