"""``python -m tests.goldens.record``: rewrite the golden results, for intended changes."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from app.main import create_app
from app.settings import Settings
from lamanas_core.meta_model import MetaModel, shipped
from tests.goldens.episodes import SHOTS, result
from tests.goldens.machine import machine
from tests.goldens.trainings import RUNS, digest, weights, write_data

FOLDER = Path(__file__).parent


def api() -> str:
    """The OpenAPI document in the form in which it is stored."""
    document = create_app(Settings(redis_url="unix:///nowhere")).openapi()
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def slug(name: str) -> str:
    """A file name for the entry ``name``."""
    return name.replace(" ", "-").replace(",", "")


def main() -> None:
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
    (FOLDER / "openapi.json").write_text(api())


if __name__ == "__main__":
    main()
