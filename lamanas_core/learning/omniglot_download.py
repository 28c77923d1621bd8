"""Omniglot by torchvision, put in the official layout."""

import shutil
from pathlib import Path

import torch
from torch.library import Library

from lamanas_core.learning.datasets import OMNIGLOT_PARTS

_declared: list[Library] = []


def import_torchvision_datasets() -> object:
    """``torchvision.datasets``.

    PyPI's torchvision is built against the CUDA torch; beside a CPU-only torch its own fake kernels find two operators
    undeclared. Declaring them lets the parts written in Python import.
    """
    try:
        from torchvision import datasets
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
        _declared.append(library)
        from torchvision import datasets
    return datasets


def download(folder: Path) -> Path:
    """Both parts under ``folder``; returns it. Raises what torchvision raises without a network."""
    datasets = import_torchvision_datasets()
    for background in (True, False):
        datasets.Omniglot(str(folder), background=background, download=True)  # type: ignore[attr-defined]
    for part in OMNIGLOT_PARTS:
        unpacked = folder / "omniglot-py" / part
        if unpacked.is_dir() and not (folder / part).exists():
            shutil.move(str(unpacked), folder / part)
    return folder
