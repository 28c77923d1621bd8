"""Checkpoints of training runs: a safetensors file with tensors and, in its header, JSON; replaced atomically."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from lamanas_core.files import write_whole

FILE = "checkpoint.safetensors"


def save(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write ``folder/checkpoint.safetensors``; see ``write``."""
    write(folder / FILE, tensors, state)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of the last ``save``; None if there is no checkpoint."""
    path = folder / FILE
    return read(path) if path.is_file() else None


def write(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write ``path`` atomically: ``tensors`` by name, and ``state``, a JSON object. Raises OSError."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, serialised(contiguous, metadata={"state": json.dumps(dict(state))}))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state in ``path``, written by ``write``. Raises FileNotFoundError and SafetensorError."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        state: dict[str, Any] = json.loads(file.metadata()["state"])
    return tensors, state


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state tensors of an optimizer, named ``optimizer.<index of the parameter>.<key>``."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{key}": value for i, values in state.items() for key, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of ``optimizer_tensors``, for an optimizer over the same parameters in the same order."""
    document = optimizer.state_dict()
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            states.setdefault(int(index), {})[key] = tensor
    document["state"] = states
    optimizer.load_state_dict(document)
