"""Table 1: its rows, a tiny budget from end to end, going on, and the table out of the JSONs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lamanas_core.glyphs import write_folders
from lamanas_core.image_spec import ImageSpec
from lamanas_core.learning import reproduction
from lamanas_core.learning.config import PRESETS
from lamanas_core.learning.reproduction import BUDGETS, reproduce, rows, table

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


def test_the_rows_are_the_nine_variants_and_the_references() -> None:
    assert [row.name for row in rows()] == [
        "cross_entropy",
        *(
            f"{loss}{residual}-{proxy}"
            for loss in ("fnn", "lstm")
            for residual in ("", "-residual")
            for proxy in ("mse", "inner_product")
        ),
        "maml",
        "reptile",
        "prototypes",
        "resnet18",
    ]


def test_a_finished_run_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = PRESETS["paper"]
    network = replace(
        paper.network, image=ImageSpec(size=8), channels=2, nodes=2, ways=4, cells=("normal", "reduction")
    )
    task = replace(paper.task_learner, steps=2, hidden=4, batch=4)
    monkeypatch.setitem(PRESETS, "miniature", replace(paper, preset="miniature", network=network, task_learner=task))
    chosen = [row for row in rows() if row.name in ("lstm-residual-mse", "maml", "reptile")]
    monkeypatch.setattr(reproduction, "rows", lambda: tuple(chosen))
    write_folders(tmp_path / "glyphs", classes=24, images=8, seed=0)

    def go() -> list[str]:
        folders = tmp_path / "glyphs", tmp_path / "run", tmp_path / "out"
        found = reproduce(TINY, range(TINY.seeds), *folders, "it", lambda words: None)
        return [path.name for path in found]

    assert go() == [f"{row.name}-0.json" for row in chosen]
    assert go() == []
    (tmp_path / "out" / "maml-0.json").unlink()
    assert go() == ["maml-0.json"]
    assert "| reptile | cross_entropy | - | - | 1 x 2 episodes |" in table(tmp_path / "out")


def test_a_row_has_the_interval_of_all_its_episodes_and_its_seeds_apart(tmp_path: Path) -> None:
    common = {
        "row": "fnn-mse",
        "train_accuracy": 0.7,
        "parameters_kept": 10,
        "parameters_total": 2000,
        "direction_changed": 0.25,
    }
    for seed, accuracies in ((1, [0.7, 0.9]), (0, [0.5, 0.7])):
        one = common | {"seed": seed, "accuracy": sum(accuracies) / 2, "accuracies": accuracies}
        (tmp_path / f"fnn-mse-{seed}.json").write_text(json.dumps(one))
    half = 196 * ((0.04 + 0.0 + 0.0 + 0.04) / 3 / 4) ** 0.5
    expected = (
        "| fnn-mse | fnn | off | mse | 2 x 2 episodes "
        f"| 70.0 ± {half:.1f} | 60.0, 80.0 | 70.0 | 10 of 2,000 | 0.25, 0.25 | - |"
    )
    assert expected in table(tmp_path).splitlines()
