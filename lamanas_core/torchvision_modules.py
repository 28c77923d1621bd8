"""Importing modules that need torchvision, with any build of torch."""

from importlib import import_module
from typing import Any

import torch
from torch.library import Library

_declared: list[Library] = []


def imported(name: str) -> Any:
    """The module ``name``, which imports torchvision. Raises ImportError.

    PyPI's torchvision is built against torch with CUDA. With a CPU-only torch its import fails, because it registers
    fake kernels for two operators that are not declared; declaring them makes the import work.
    """
    try:
        return import_module(name)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
        _declared.append(library)
        return import_module(name)
