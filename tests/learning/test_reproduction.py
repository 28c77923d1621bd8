"""Table 1: its rows, a reproduction with a tiny budget, resuming it, and the table of its JSON files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cli.main import main
from lamanas_core.adapt.adapted import adapt
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.artifact import Classifier
from lamanas_core.config import PRESETS, Config
from lamanas_core.data.folders import load_dataset
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.image_spec import ImageSpec
from lamanas_core.measure.evaluate import EvaluationConfig, evaluate
from lamanas_core.measure.table1 import runs
from lamanas_core.measure.table1.rows import BUDGETS, PAPER_TABLE, Row, rows, variants
from lamanas_core.measure.table1.runs import (
    centred,
    one_run,
    recipe,
    reproduce,
    slope_without_label,
    training_config,
    warmed_up,
    with_level_head,
    with_prototypes,
)
from lamanas_core.measure.table1.tables import table, variants_table
from lamanas_core.meta.gradient import MetaGradient
from lamanas_core.meta.reptile import reptile
from lamanas_core.meta_model import MetaModel
from lamanas_core.train import loop
from lamanas_core.train.starting import starting_parameters
from tests.learning.brief_training import brief_recipe

TINY = replace(
    BUDGETS["small"],
    preset="miniature",
    warm_up_epochs=0,
    meta_epochs=1,
    meta_batch=1,
    steps=1,
    episodes=2,
    train_episodes=1,
    seeds=1,
    ways=4,
    shots=1,
)


def test_the_rows_are_the_nine_variants_and_the_baselines() -> None:
    assert [row.name for row in rows()] == [
        "cross_entropy",
        *(
            f"{loss}{residual}-{proxy}"
            for loss in ("fnn", "lstm")
            for residual in ("", "-residual")
            for proxy in ("mse", "inner_product")
        ),
        "no_meta_training",
        "maml",
        "reptile",
        "prototypes",
        "resnet18",
    ]


@pytest.fixture
def miniature(monkeypatch: pytest.MonkeyPatch) -> Config:
    """The preset ``miniature``: the paper's network, small enough to train in a second, with 4 classes."""
    paper = PRESETS["paper"]
    network = replace(
        paper.network,
        image=ImageSpec(size=8),
        channels=2,
        nodes=2,
        ways=4,
        cells=("normal", "reduction"),
        operations=("skip", "conv_3x3"),
    )
    task = replace(paper.task_learner, steps=2, hidden=4, batch=4)
    config = replace(paper, preset="miniature", network=network, task_learner=task)
    monkeypatch.setitem(PRESETS, "miniature", config)
    return config


def untrained(config: Config) -> MetaModel:
    return MetaModel(initial_parameters(config, 0), {"config": config.to_json()})


def named(name: str) -> Row:
    return next(row for row in (*rows(), *variants()) if row.name == name)


def test_a_finished_run_is_not_repeated(miniature: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [row for row in rows() if row.name in ("lstm-residual-mse", "maml", "reptile")]
    monkeypatch.setattr(runs, "recipe", lambda *_: brief_recipe())
    write_folders(tmp_path / "glyphs", classes=24, images=8, seed=0)

    def run() -> list[str]:
        folders = tmp_path / "glyphs", tmp_path / "run", tmp_path / "out"
        found = reproduce(chosen, TINY, range(TINY.seeds), *folders, "it", lambda words: None)
        return [path.name for path in found]

    assert run() == [f"{row.name}-0.json" for row in chosen]
    assert run() == []
    (tmp_path / "out" / "maml-0.json").unlink()
    assert run() == ["maml-0.json"]
    assert "| reptile | 1 x 2 episodes |" in table(tmp_path / "out")


def test_the_rates_of_the_budget_are_those_of_algorithm_2() -> None:
    reptile = recipe(replace(TINY, outer_rate=0.25), named("lstm-mse")).reptile
    assert (reptile.theta_rate, reptile.alpha_rate, reptile.phi_rate) == (0.25, 0.25, 0.25)


def test_a_variant_overrides_what_it_names(miniature: Config, tmp_path: Path) -> None:
    variant = Row("variant", outer_rate=0.5, phi_rate=0.75, meta_batch=7, steps=9, phi_steps="each_step")
    config, chosen = training_config(variant, 0, TINY, tmp_path), recipe(TINY, variant).reptile
    assert (config.meta_batch, config.phi_steps) == (7, "each_step")
    assert (chosen.theta_rate, chosen.alpha_rate, chosen.phi_rate, chosen.steps) == (0.5, 0.5, 0.75, 9)
    config, chosen = training_config(Row("row"), 0, TINY, tmp_path), recipe(TINY, Row("row")).reptile
    assert (config.meta_batch, config.phi_steps) == (TINY.meta_batch, "once")
    assert (chosen.theta_rate, chosen.steps) == (TINY.outer_rate, None)


def test_the_names_of_variants_tell_their_settings() -> None:
    table_1 = {row.name: row for row in rows()}
    for row in variants():
        parts = row.name.split("-")
        for part, value in (("rate", row.outer_rate), ("phi_rate", row.phi_rate)):
            told = [one for one in parts if one.startswith(f"{part}_")]
            assert told == ([] if value is None else [f"{part}_{value:g}"]), row.name
        assert (row.steps is not None) == (f"{row.steps}_steps" in parts)
        assert (row.meta_batch is not None) == (f"{row.meta_batch}_tasks" in parts)
        assert (row.phi_steps == "each_step") == ("each_step" in parts)
        assert row.level_head == ("level_head" in parts)
        assert (row.algorithm == "none") == ("untrained" in parts)
        assert (parts[0], row.residual) == (row.loss, "residual" in parts)
        assert row.proxy is None or row.proxy in parts
        assert row.centred == ("centred" in parts)
        assert not row.centred or replace(row, name=row.trained_as, centred=False) == table_1[row.trained_as]


@pytest.mark.parametrize("level_head", [False, True])
def test_algorithm_2_moves_the_linear_layer_unless_each_task_starts_with_it_level(
    miniature: Config, tmp_path: Path, *, level_head: bool
) -> None:
    write_folders(tmp_path / "glyphs", classes=24, images=8, seed=0)
    row = Row("row", level_head=level_head)
    config, start = training_config(row, 0, TINY, tmp_path), untrained(miniature).parameters.theta
    brief = replace(brief_recipe(validate=False), reptile=recipe(TINY, row).reptile)
    model = runs.trained(config, brief, tmp_path / "glyphs", tmp_path / "trained")
    moved = {name for name, value in model.parameters.theta.items() if not torch.equal(value, start[name])}
    assert moved & {"head.weight", "head.bias"} == (set() if level_head else {"head.weight", "head.bias"})
    assert any(name.startswith("stem.") for name in moved)


@pytest.mark.parametrize(("asked", "taken"), [(None, 2), (3, 3)])
def test_tasks_of_algorithm_2_have_the_steps_of_the_recipe(
    miniature: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None, taken: int
) -> None:
    counts = []

    def counted(*arguments: Any) -> MetaGradient:
        counts.append(arguments[3])
        return reptile(*arguments)

    monkeypatch.setattr(loop, "reptile", counted)
    write_folders(tmp_path / "glyphs", classes=24, images=8, seed=0)
    row = Row("row", steps=asked)
    brief = replace(brief_recipe(validate=False), reptile=recipe(TINY, row).reptile)
    runs.trained(training_config(row, 0, TINY, tmp_path), brief, tmp_path / "glyphs", tmp_path / "trained")
    assert counts == [taken]


def test_the_row_of_an_untrained_loss_takes_its_steps_on_that_loss(
    miniature: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "recipe", lambda *_: brief_recipe(validate=False))
    write_folders(tmp_path / "glyphs", classes=24, images=8, seed=0)
    budget, folders = replace(TINY, warm_up_epochs=1, steps=5), (tmp_path / "glyphs", tmp_path / "run")
    learned = one_run(named("fnn-residual-untrained"), 0, budget, *folders)
    assert learned["config"]["loss"] == "fnn"
    assert learned["direction_changed"] is None
    entropy = one_run(named("no_meta_training"), 0, budget, *folders)
    assert learned["prototype_accuracy"] == entropy["prototype_accuracy"]
    assert learned["accuracies"] != entropy["accuracies"]


def test_variants_are_compared_with_the_same_episodes_of_table_1(tmp_path: Path) -> None:
    def write(folder: str, name: str, seed: int, accuracies: list[float]) -> None:
        path = tmp_path / folder / f"{name}-{seed}.json"
        path.parent.mkdir(exist_ok=True)
        one = {"row": name, "seed": seed, "accuracies": accuracies, "prototype_accuracy": 0.8}
        path.write_text(json.dumps(one | {"slope_without_label": 0.25}), "utf-8")

    def compared() -> list[str]:
        [*_, line] = variants_table(tmp_path / "variants", tmp_path / "table1").splitlines()
        return line.removeprefix("| cross_entropy-20_steps | ").removesuffix(" |").split(" | ")

    write("variants", "cross_entropy-20_steps", 1, [0.5, 0.75])
    assert compared() == ["1 x 2 episodes", "62.5 ± 24.5", "-", "-", "80.0", "0.25"]
    write("table1", "no_meta_training", 0, [0.1, 0.1])
    write("table1", "no_meta_training", 1, [0.25, 0.5])
    write("table1", "cross_entropy", 1, [0.5, 0.25])
    assert compared() == ["1 x 2 episodes", "62.5 ± 24.5", "+25.0 ± 0.0", "+25.0 ± 49.0", "80.0", "0.25"]
    write("variants", "cross_entropy-20_steps", 0, [0.6, 0.6])
    write("variants", "cross_entropy-20_steps", 2, [0.6, 0.6])
    assert compared()[2:4] == ["+37.5 ± 14.1 (2 of 3 seeds)", "+25.0 ± 49.0 (1 of 3 seeds)"]


@pytest.mark.parametrize("what", ["table1", "variants"])
def test_the_command_prints_the_table_of_the_finished_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    for name in ("cross_entropy", "cross_entropy-20_tasks"):
        one = {"row": name, "seed": 0, "accuracy": 0.5, "accuracies": [0.5], "train_accuracy": 0.6}
        one |= {"prototype_accuracy": 0.7, "parameters_kept": 1, "parameters_total": 2}
        path = tmp_path / ("small-variants" if "tasks" in name else "small") / f"{name}-0.json"
        path.parent.mkdir()
        path.write_text(json.dumps(one), "utf-8")
    assert main(["reproduce", what, "--table", "--out", str(tmp_path)]) == 0
    *_, line = capsys.readouterr().out.splitlines()
    assert line.split(" | ")[0] == ("| cross_entropy-20_tasks" if what == "variants" else "| cross_entropy")
    assert main(["reproduce", "variants", "--table", "--budget", "paper"]) == 1
    assert "variants start from a warm-up, which budget paper does not have" in capsys.readouterr().err


def test_the_row_without_meta_training_is_the_warm_up_after_k_steps(
    miniature: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "recipe", lambda *_: brief_recipe(validate=False))
    write_folders(tmp_path / "glyphs", classes=24, images=8, seed=0)
    budget, data, run = replace(TINY, warm_up_epochs=1, episodes=8), tmp_path / "glyphs", tmp_path / "run"
    found = one_run(named("no_meta_training"), 0, budget, data, run)
    assert not (run / "no_meta_training-0").exists()
    model = warmed_up(budget, data, run)
    test = load_dataset(data, miniature.network.image)["test"]
    asked = EvaluationConfig(budget.ways, budget.shots, 5, budget.episodes, 0, budget.steps)
    accuracies = evaluate(model, test, asked, lambda number: None).accuracies
    assert found["accuracies"] == [round(value, 4) for value in accuracies]
    # With its linear layer at 0, it tells classes apart only after steps; the class means of its θ do without.
    means = one_run(named("prototypes"), 0, budget, data, run)
    assert found["prototype_accuracy"] == means["accuracy"] == means["prototype_accuracy"] != found["accuracy"]


def test_the_papers_numbers_stand_beside_ours(tmp_path: Path) -> None:
    assert {row.name for row in rows()} > PAPER_TABLE.keys()
    assert len(PAPER_TABLE) == 9
    one = {"row": "lstm-residual-inner_product", "seed": 0, "accuracy": 0.5, "accuracies": [0.5], "train_accuracy": 0.6}
    one |= {"prototype_accuracy": 0.7, "parameters_kept": 1, "parameters_total": 2, "direction_changed": None}
    one["slope_without_label"] = None
    (tmp_path / "one.json").write_text(json.dumps(one))
    (line,) = [line for line in table(tmp_path).splitlines() if line.startswith("| lstm")]
    assert line.endswith("| 50.0 ± 0.0 | - | 50.0 | 60.0 | 70.0 | 1 of 2 | - | - | 91.4 | 61.3 | 435,067 |")


def test_a_row_has_the_interval_of_all_its_episodes_and_the_accuracy_of_each_seed(tmp_path: Path) -> None:
    common = {
        "row": "fnn-mse",
        "train_accuracy": 0.7,
        "prototype_accuracy": 0.8,
        "parameters_kept": 10,
        "parameters_total": 2000,
        "direction_changed": 0.25,
        "slope_without_label": 0.5,
    }
    for seed, accuracies in ((1, [0.7, 0.9]), (0, [0.5, 0.7])):
        one = common | {"seed": seed, "accuracy": sum(accuracies) / 2, "accuracies": accuracies}
        (tmp_path / f"fnn-mse-{seed}.json").write_text(json.dumps(one))
    half = 196 * ((0.04 + 0.0 + 0.0 + 0.04) / 3 / 4) ** 0.5
    expected = (
        f"| fnn-mse | 2 x 2 episodes | 70.0 ± {half:.1f} | ± {12.71 * 10:.1f} | 60.0, 80.0 | 70.0 | 80.0 "
        "| 10 of 2,000 | 0.25, 0.25 | 0.50, 0.50 | 7.5 | 6.5 | 327,590 |"
    )
    assert expected in table(tmp_path).splitlines()


def test_rows_start_from_the_same_warm_up_with_their_own_losses(
    miniature: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "recipe", lambda *_: brief_recipe(validate=False))
    write_folders(tmp_path / "glyphs", classes=24, images=8, seed=0)
    budget, run = replace(TINY, warm_up_epochs=1), tmp_path / "run"
    start = warmed_up(budget, tmp_path / "glyphs", run)
    fresh = untrained(miniature).parameters.theta
    assert any(not torch.equal(fresh[name], value) for name, value in start.parameters.theta.items())
    losses = set()
    for name, seed in (("cross_entropy", 0), ("fnn-mse", 0), ("lstm-residual-mse", 1), ("maml", 0), ("reptile", 2)):
        config = training_config(named(name), seed, budget, run)
        found = starting_parameters(config.model_config(), config.start, config.seed)
        for part, expected in ((found.theta, start.parameters.theta), (found.alpha, start.parameters.alpha)):
            assert part.keys() == expected.keys()
            assert all(torch.equal(value, expected[key]) for key, value in part.items())
        losses.add(tuple(found.phi))
    assert len(losses) == 3  # none, feed-forward, LSTM

    def again(*_: object, **__: object) -> MetaModel:
        raise AssertionError("warmed up a second time")

    monkeypatch.setattr(runs, "train", again)
    assert warmed_up(budget, tmp_path / "glyphs", run).version == start.version


def test_the_slope_without_label_is_that_of_all_labels_over_what_each_has_beyond_it(miniature: Config) -> None:
    """Of a loss whose slope with respect to the logits is known: cross-entropy plus twice the first logit."""

    class Known(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor, *_: object) -> tuple[Tensor, None]:
            return F.cross_entropy(logits, labels) + 2 * logits[:, 0].mean(), None

    model = untrained(replace(miniature, task_learner=replace(miniature.task_learner, loss="cross_entropy")))
    model.learner = replace(model.learner, loss=Known())  # type: ignore[arg-type]
    # softmax(0) - label: three times 1/4 and once -3/4.
    assert slope_without_label(model) == pytest.approx(2 / (3 * 0.25**2 + 0.75**2) ** 0.5)
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 3])
    without, _ = centred(model).learner.learned_loss({}, logits, labels, 0.0)
    torch.testing.assert_close(without, F.cross_entropy(logits, labels))
    assert slope_without_label(centred(model)) == pytest.approx(0, abs=1e-6)
    assert slope_without_label(model) > 1


def test_a_centred_variant_takes_the_trained_model_of_its_row_and_its_steps_on_the_centred_loss(
    miniature: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "recipe", lambda *_: brief_recipe(validate=False))
    write_folders(tmp_path / "glyphs", classes=24, images=8, seed=0)
    budget, folders = replace(TINY, steps=5), (tmp_path / "glyphs", tmp_path / "run")
    plain = one_run(named("fnn-residual-mse"), 0, budget, *folders)
    monkeypatch.setattr(runs, "train", None)
    without = one_run(named("fnn-residual-mse-centred"), 0, budget, *folders)
    for same in ("config", "prototype_accuracy", "direction_changed", "slope_without_label"):
        assert without[same] == plain[same], same
    assert without["accuracies"] != plain["accuracies"]


def test_a_level_head_gives_all_classes_the_same_logit_and_keeps_the_other_weights(miniature: Config) -> None:
    model = untrained(miniature)
    model.parameters.theta["head.bias"].copy_(torch.arange(4))
    level = with_level_head(model)
    images, labels = support(ways=4)
    before, after = (classifier(m, images, labels, 4).logits(images) for m in (model, level))
    assert np.ptp(before, axis=1).min() > 0
    assert np.ptp(after, axis=1).max() == 0
    theta = level.parameters.theta
    changed = {name for name, value in model.parameters.theta.items() if not torch.equal(value, theta[name])}
    assert changed == {"head.weight", "head.bias"}


def test_the_prototype_head_replaces_the_linear_layer_and_takes_more_classes(miniature: Config) -> None:
    model = with_prototypes(with_level_head(untrained(miniature)))
    assert not any(name.startswith("head.") for name in model.parameters.theta)
    images, labels = support(ways=6)
    noise = np.random.default_rng(1).integers(0, 9, images.shape, dtype=np.uint8)
    logits = classifier(model, images, labels, 6).logits(images + noise)
    assert logits.argmax(1).tolist() == labels.tolist()


def test_the_resnet_row_starts_from_random_weights_in_its_own_network() -> None:
    small = BUDGETS["small"]
    config = training_config(named("resnet18"), 1, small, Path("run"))
    assert config.start is None
    assert config.seed == 1
    assert (config.meta_epochs, config.meta_batch) == (small.resnet_meta_epochs, small.resnet_meta_batch)
    network = config.model_config().network
    assert network.stem == "resnet18"
    assert training_config(named("cross_entropy"), 1, small, Path("run")).model_config().network.stem == "convolution"
    assert (config.loss, config.meta) == ("cross_entropy", "reptile")
    theta = starting_parameters(config.model_config(), config.start, config.seed).theta
    assert any(name.startswith("stem.behind") for name in theta)


def support(ways: int) -> tuple[np.ndarray, np.ndarray]:
    """Two images per class, equal but for a little noise: uint8 (n, 1, 8, 8), and labels, int64 (n,)."""
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 200, (ways, 1, 8, 8), dtype=np.uint8).repeat(2, axis=0)
    return squares + rng.integers(0, 9, squares.shape, dtype=np.uint8), np.arange(ways).repeat(2)


def classifier(model: MetaModel, images: np.ndarray, labels: np.ndarray, ways: int) -> Classifier:
    """The classifier adapted without inner steps."""
    names = [str(label) for label in range(ways)]
    adapted = adapt(model, images, labels, names, steps=0, seed=0, device="cpu", on_step=lambda *_: None)
    return Classifier.from_bytes(adapted.artifact)
