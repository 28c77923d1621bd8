"""The numbers in the documents and the model card are those of the stored runs, which used the shipped model."""

import json
from pathlib import Path
from typing import Any

import pytest

from lamanas_core.measure.table1.tables import table, variants_table
from lamanas_core.meta_model import MetaModel, shipped
from tests.conftest import ROOT

DOCS = ROOT / "docs"
EVALUATIONS = sorted((DOCS / "evaluation").glob("*.json"))
PHOTOS = (DOCS / "photos.md").read_text("utf-8")
TOLD = (DOCS / "told.md").read_text("utf-8")
UNLABELLED = (DOCS / "unlabelled.md").read_text("utf-8")
OF_UNLABELLED = sorted((DOCS / "evaluation" / "unlabelled").glob("*.json"))
TRAINING = (DOCS / "training.md").read_text("utf-8")


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def points(pair: list[float]) -> str:
    return f"{100 * pair[0]:+.2f} ± {100 * pair[1]:.2f}"


@pytest.mark.parametrize("path", EVALUATIONS, ids=lambda path: path.stem)
def test_quoted_runs_are_of_the_shipped_model(path: Path) -> None:
    """Accuracies may be those of an earlier version that differs in its calibration of novelty alone."""
    model, run = MetaModel.from_bytes(*shipped()), read(path)
    versions = {model.version}
    for version, calibration in model.card["earlier_calibrations"].items():
        config = model.card["config"] | {"calibration": calibration}
        assert MetaModel(model.parameters, {"config": config}).version == version
        assert calibration["temperature"] == model.config.calibration.temperature
        versions |= {version} if run.get("novelty_auroc") is None else set()
    assert run["model_version"] in versions


@pytest.mark.parametrize("path", [path for path in EVALUATIONS if "ece" in read(path)], ids=lambda path: path.stem)
def test_accuracies_in_documents_and_card_are_those_of_the_runs(path: Path) -> None:
    run = read(path)
    stated = f"{100 * run['accuracy']:.2f} % ± {100 * run['ci95']:.2f}"
    assert stated in TRAINING
    assert stated in (ROOT / "README.md").read_text("utf-8")
    assert "{:.1f} % and {:.1f} %".format(*(100 * fraction for fraction in run["called_unknown"])) in TRAINING
    of_the_card = MetaModel.from_bytes(*shipped()).card["metrics"]["test"]
    assert [one["run"] for one in of_the_card if one["accuracy"] == round(run["accuracy"], 5)] == [path.name]


@pytest.mark.parametrize("path", [path for path in EVALUATIONS if "variants" in read(path)], ids=lambda path: path.stem)
def test_the_gain_of_adaptation_in_the_document_is_that_of_the_runs(path: Path) -> None:
    found = read(path)["variants"]
    cells = (
        f"{100 * found['none']['accuracy'][0]:.2f} %",
        f"{100 * found['learned']['accuracy'][0]:.2f} %",
        points(found["learned"]["over_none"]),
        points(found["learned"]["over_best_cross_entropy"]),
    )
    assert " | ".join(cells) in TRAINING


def test_the_error_on_lakes_runs_in_the_documents_is_that_of_the_run() -> None:
    run = read(DOCS / "evaluation" / "lake" / "one_shot_runs.json")
    assert (run["runs"], run["trained_classes"]) == (20, 0)
    stated = f"{100 * run['error']:.1f} ± {100 * run['ci95']:.1f} %"
    wrong = round(400 * run["error"])
    told = f"{run['model_version']}, makes **{stated} errors**, which are {wrong} of the 400 test images"
    assert told in " ".join(TRAINING.split())
    assert f"makes {stated} errors" in " ".join((ROOT / "README.md").read_text("utf-8").split())


STEPS = [path for path in EVALUATIONS if "steps_compared" in read(path)]


@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.stem)
def test_the_comparison_of_numbers_of_steps_in_the_document_is_that_of_the_runs(path: Path) -> None:
    run = read(path)
    found = run["steps_compared"]
    assert list(found) == ["3", "5", "8"]
    cells = (
        f"{run['ways']}-way {run['shots']}-shot, {run['episodes']} episodes",
        f"{100 * found['3']['accuracy'][0]:.2f} %",
        points(found["5"]["over_first"]),
        points(found["8"]["over_first"]),
        ", ".join(f"{one['query_cross_entropy'][0]:.3f}" for one in found.values()),
    )
    assert " | ".join(cells) in TRAINING


def test_the_shipped_model_makes_the_number_of_steps_that_the_comparison_chose() -> None:
    """Another one would have been chosen for a gain on restyled validation characters beyond its interval."""
    found = read(DOCS / "evaluation" / "steps_restyled_val_5_shot.json")["steps_compared"]
    assert all(gain < interval for gain, interval in (found[count]["over_first"] for count in ("5", "8")))
    assert str(MetaModel.from_bytes(*shipped()).config.task_learner.steps) == next(iter(found))


@pytest.mark.parametrize("path", [path for path in EVALUATIONS if "estimate" in read(path)], ids=lambda path: path.stem)
def test_what_clients_are_told_in_the_document_is_that_of_the_runs(path: Path) -> None:
    found = read(path)
    assert " | ".join(told_cells(found)) in TOLD


def told_cells(found: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table in docs/told.md, without its name."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    known, others = found["called_unknown"]
    estimate, difference = found["estimate"] or [None], found["difference"]
    return (
        percent(found["accuracy"][0]),
        percent(estimate[0]),
        "-" if difference is None else f"{100 * difference[0]:+.1f} ± {100 * difference[1]:.1f}",
        percent(found["warned"]),
        percent(known),
        percent(others),
        percent(found["suspects"]["recall"]),
        percent(found["suspects"]["precision"]),
    )


@pytest.mark.parametrize(
    "five_shot", sorted((DOCS / "evaluation" / "kinds").glob("*_5_shot.json")), ids=lambda p: p.stem
)
def test_how_often_images_are_taken_for_photos_in_the_document_is_that_of_the_runs(five_shot: Path) -> None:
    name = five_shot.stem.removesuffix("_5_shot")
    five, one = read(five_shot), read(five_shot.with_name(f"{name}_1_shot.json"))
    assert (five["episodes"], five["shots"], one["shots"], five["ways"], one["ways"]) == (200, 5, 1, 5, 5)
    cells = f"| {100 * five['photos']:.1f} | {100 * one['photos']:.1f} | `--data "
    [row] = [line for line in TOLD.splitlines() if cells in line and name.split("_")[0] in line]
    assert all(run["photos"] >= 0.99 if "Photos" in row else run["photos"] <= 0.01 for run in (five, one))


CONTESTANTS = ("logistic_regression", "logistic_regression_with_crops", "no_steps", "cross_entropy")
OF_PHOTOS = sorted((DOCS / "evaluation" / "photos").glob("*.json"))


def assert_model_had_not_seen(data: str, run: dict[str, Any]) -> None:
    """The shipped model for the two sets that are reported only; for the others, that of a training without the set."""
    if data in ("gtsrb", "rsscn7"):
        assert run["model_version"] == read(ROOT / "lamanas_core" / "shipped" / "photos" / "model.json")["version"]
    else:
        of_set = read(DOCS / "evaluation" / "photos" / f"{data}_5_way_5_shot.json")
        assert (run["model_version"], of_set["trained_on"]) == (of_set["model_version"], f"without-{data}")


@pytest.mark.parametrize("path", OF_PHOTOS, ids=lambda path: path.stem)
def test_the_figures_of_photos_in_the_document_are_those_of_the_run(path: Path) -> None:
    run = read(path)
    assert_model_had_not_seen(run["data"], run)
    assert run["episodes"] == 250

    def interval(mean: float, half: float) -> str:
        return f"{mean:.1f} ± {half:.1f}"

    def difference(name: str) -> str:
        """From the contestant ``name``; - if it did not take part yet."""
        return "{:+.2f} ± {:.2f}".format(*run[f"over_{name}"]) if f"over_{name}" in run else "-"

    regressions = {name for name in run["accuracy"] if name.startswith("logistic") and not name.endswith("crops")}
    regression = max(run["accuracy"][name] for name in regressions)
    cells = [interval(*run["accuracy"]["adapted"]), interval(*regression)]
    cells += [difference(name) for name in CONTESTANTS]
    [row] = [line for line in PHOTOS.splitlines() if f"({run['data']}), {run['ways']}-way {run['shots']}-shot" in line]
    assert row.split(" | ")[1:] == [*cells, f"{run['calibration_error']:.1f} |"]


@pytest.mark.parametrize("shots", [5, 1])
def test_the_means_over_the_sets_in_the_document_are_those_of_the_runs(shots: int) -> None:
    runs = [run for run in map(read, OF_PHOTOS) if (run["ways"], run["shots"]) == (5, shots)]
    assert len({run["data"] for run in runs}) == len(runs)
    found = [[run[f"over_{name}"][0] for run in runs if f"over_{name}" in run] for name in CONTESTANTS]
    means = [f"{sum(differences) / len(differences):+.2f}" for differences in found]
    assert f"mean of the {len(runs)} sets, 5-way {shots}-shot | | | {' | '.join(means)} | |" in PHOTOS


@pytest.mark.parametrize("path", sorted((DOCS / "evaluation" / "told_photos").glob("*.json")), ids=lambda p: p.stem)
def test_what_clients_are_told_of_photos_in_the_document_is_that_of_the_runs(path: Path) -> None:
    found = read(path)
    assert_model_had_not_seen(path.stem, found)
    assert f"5-way 5-shot: {path.stem} | {' | '.join(told_cells(found))} |" in TOLD


@pytest.mark.parametrize("path", OF_UNLABELLED, ids=lambda path: path.stem)
def test_what_unlabelled_images_add_in_the_document_is_that_of_the_runs(path: Path) -> None:
    run = read(path)
    if run["ways"] == 5:
        assert_model_had_not_seen(path.stem, run)
    else:
        assert run["model_version"] == read(ROOT / "lamanas_core" / "shipped" / "drawings" / "model.json")["version"]
    found, cases = run["unlabelled"], ("own", "mixed", "others")
    seem = ", ".join(f"{found[case]['belonging']:.2f}" for case in cases if case in found)
    added = [points(found[case]["over_none"]) if case in found else "-" for case in cases]
    entropies = ", ".join(f"{found[case]['query_cross_entropy'][0]:.2f}" for case in ("none", *cases) if case in found)
    cells = (
        f"{run['episodes']} episodes",
        f"{100 * found['none']['accuracy'][0]:.2f} %",
        *added,
        entropies,
        f"{seem} |",
    )
    named = f"({path.stem}), " if run["ways"] == 5 else f"{path.stem.partition('_')[0]}, "
    setting = f"{named}{run['ways']}-way {run['shots']}-shot | "
    [row] = [line for line in UNLABELLED.splitlines() if setting in line]
    assert row.split(" | ")[1:] == list(cells)


def test_the_mean_of_what_unlabelled_photos_add_in_the_document_is_that_of_the_runs() -> None:
    runs = [run for run in map(read, OF_UNLABELLED) if run["ways"] == 5]
    means = [
        f"{100 * sum(run['unlabelled'][case]['over_none'][0] for run in runs) / len(runs):+.2f}"
        for case in ("own", "mixed", "others")
    ]
    assert f"| mean of the {len(runs)} sets of photos | | | {' | '.join(means)} | | |" in UNLABELLED


def test_the_tables_of_the_reproduction_are_generated_from_the_runs() -> None:
    table_1, variants = DOCS / "reproduction" / "small", DOCS / "reproduction" / "small-variants"
    document = (DOCS / "reproduction.md").read_text("utf-8")
    assert table(table_1) in document
    assert variants_table(variants, table_1) in document
