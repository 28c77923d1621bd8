"""The parts of the adaptation are compared on the same episodes, and each variant does what its name says."""

from dataclasses import replace
from pathlib import Path

import torch

from lamanas_core.glyphs import write_folders
from lamanas_core.image_spec import ImageSpec
from lamanas_core.learning.ablation import ablate, variants
from lamanas_core.learning.datasets import load_dataset
from lamanas_core.learning.evaluation import EvaluationConfig
from lamanas_core.learning.meta_model import MetaModel
from lamanas_core.learning.task_learner import initial_parameters, steps
from tests.learning.helpers import MINIATURE

CONFIG = replace(MINIATURE, network=replace(MINIATURE.network, image=ImageSpec()))


def model() -> MetaModel:
    return MetaModel(initial_parameters(CONFIG, 0), {"config": CONFIG.to_json()})


def test_each_variant_moves_what_its_name_says() -> None:
    images, labels = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    moved = {}
    for name, variant in variants(model()).items():
        of = variant.model
        count = of.config.task_learner.steps if variant.steps is None else variant.steps
        theta, alpha = of.parameters.theta, of.parameters.alpha
        for step in steps(of.learner, of.parameters, images, labels, 3, count):
            theta, alpha = step.theta, step.alpha
        moved[name] = tuple(
            any(not torch.equal(old[n], new[n]) for n in old)
            for old, new in ((of.parameters.theta, theta), (of.parameters.alpha, alpha))
        )
    assert moved.pop("none") == (False, False)
    assert moved.pop("theta_only") == (True, False)
    assert moved.pop("alpha_only") == (False, True)
    assert set(moved.values()) == {(True, True)}


def test_differences_are_paired_and_those_to_itself_are_zero(tmp_path: Path) -> None:
    write_folders(tmp_path, classes=8, images=3, seed=0)
    classes = load_dataset(tmp_path, ImageSpec())["train"]
    told: list[int] = []
    result = ablate(model(), classes, EvaluationConfig(ways=3, shots=1, queries=2, episodes=2), told.append)
    assert told == [1, 2]
    rows = result["variants"]
    assert rows["none"]["over_none"] == [0.0, 0.0]
    assert rows[result["best_cross_entropy"]]["over_cross_entropy"] == [0.0, 0.0]
    for row in rows.values():
        assert abs(row["accuracy"][0] - rows["none"]["accuracy"][0] - row["over_none"][0]) < 1e-4
    assert 0 <= result["genotype_moved"] <= 1
