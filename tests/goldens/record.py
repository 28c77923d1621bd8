"""``python -m tests.goldens.record [--documents]``: rewrite the golden results, or only the two documents."""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from app.main import create_app
from app.settings import Settings
from lamanas_core.config import PRESETS, TrainingConfig
from lamanas_core.measure.evaluate import EvaluationConfig
from lamanas_core.measure.table1.rows import BUDGETS
from lamanas_core.meta_model import MetaModel, shipped
from lamanas_core.recipe import Recipe
from tests.goldens.episodes import SHOTS, result
from tests.goldens.machine import machine
from tests.goldens.trainings import RUNS, digest, weights, write_data

FOLDER = Path(__file__).parent


def api() -> str:
    """The OpenAPI document in the form in which it is stored."""
    document = create_app(Settings(redis_url="unix:///nowhere")).openapi()
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def configuration() -> str:
    """The default configuration of models, training and evaluation, in the form in which it is stored."""
    document = {
        "presets": {name: preset.to_json() for name, preset in PRESETS.items()},
        "training": asdict(TrainingConfig()),
        "recipe": Recipe().to_json(),
        "evaluation": asdict(EvaluationConfig()),
        "table_1": {name: asdict(budget) for name, budget in BUDGETS.items()},
    }
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def slug(name: str) -> str:
    """A file name for the entry ``name``."""
    return name.replace(" ", "-").replace(",", "")


def main() -> None:
    (FOLDER / "openapi.json").write_text(api())
    (FOLDER / "configuration.json").write_text(configuration())
    if "--documents" not in sys.argv:
        record_results()


def record_results() -> None:
    """Record episodes and trainings, which takes minutes."""
    torch.set_num_threads(1)
    model = MetaModel.from_bytes(*shipped())
    goldens: dict[str, Any] = {"machine": machine(), "version": model.version, "episodes": {}, "trainings": {}}
    arrays: dict[str, Any] = {}
    for name in SHOTS:
        found = result(model, name)
        goldens["episodes"][name] = found.summary
        arrays[slug(name)] = found.logits
    np.savez_compressed(FOLDER / "logits.npz", **arrays)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_data(data)
        for name in RUNS:
            final = weights(name, data, Path(folder) / slug(name))
            goldens["trainings"][name] = digest(final)
            save_file(final, FOLDER / f"{slug(name)}.safetensors")
    (FOLDER / "goldens.json").write_text(json.dumps(goldens, indent=1) + "\n")


if __name__ == "__main__":
    main()
