"""The card of a meta-model that a training has made: its configuration, its data, and where it comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lamanas_core.config import TrainingConfig
from lamanas_core.data.folders import ImageClasses
from lamanas_core.data.splits import Split
from lamanas_core.recipe import Recipe
from lamanas_core.train.provenance import provenance
from lamanas_core.train.starting import load_start
from lamanas_core.train.trained_classes import trained_digests


def model_card(
    config: TrainingConfig,
    recipe: Recipe,
    splits: Mapping[Split, ImageClasses],
    data: Path,
    notes: Sequence[str],
    metrics: Mapping[str, float | None],
) -> dict[str, Any]:
    """The card of the model of a training on ``splits`` of the data set in the folder ``data``.

    ``notes``: how the data set was read (``folders.notes``); ``metrics``: those of the model.

    Raises FileNotFoundError and MetaModelError for ``config.start``.
    """
    described: dict[str, Any] = {
        split: {"classes": len(classes), "images": len(classes.images)} for split, classes in splits.items()
    }
    for split, classes in splits.items():
        if classes.damaged:
            described[split]["damaged"] = list(classes.damaged)
    origin: dict[str, Any] = {}
    digests = set(splits["train"].digests())
    if config.start is not None:
        start = load_start(config.start)
        origin["started_from"] = start.version
        digests |= trained_digests(start.card)  # its weights were trained on these classes
    described["train"]["digests"] = sorted(digests)
    name = data.resolve().name
    return {
        **origin,
        "config": config.model_config().to_json(),
        "training": asdict(config),
        "recipe": recipe.to_json(),
        "data": {"name": name, "notes": list(notes), **described},
        "metrics": dict(metrics),
        "domain": {"name": f"the training images, {name}", "ink": _ink_range(splits["train"])},
        "provenance": provenance(),
    }


def _ink_range(classes: ImageClasses) -> list[float]:
    """The 1 % and 99 % quantiles of the mean ink (0..1) of a training image."""
    ink = classes.images.float().mean(dim=(1, 2, 3)) / 255
    low, high = (float(torch.quantile(ink, q)) for q in (0.01, 0.99))
    return [round(low, 4), round(high, 4)]
