"""Documents that only change on purpose: their diff shows what changes for clients and for models trained later."""

from tests.goldens.record import FOLDER, api, configuration


def test_the_description_of_the_api_is_the_stored_one() -> None:
    assert api() == (FOLDER / "openapi.json").read_text(), (
        "the API's description has changed; if this is intended, `python -m tests.goldens.record --documents` stores "
        "it, and the diff of tests/goldens/openapi.json shows what clients will see"
    )


def test_presets_recipe_and_budgets_are_the_stored_ones() -> None:
    assert configuration() == (FOLDER / "configuration.json").read_text(), (
        "a default has changed; if this is intended, `python -m tests.goldens.record --documents` stores it"
    )
