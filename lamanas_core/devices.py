"""Which device to compute on, and in which precision."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from lamanas_core.search.normalisation import Normalisation


def choose_device(wanted: str) -> str:
    """``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``; under torchrun the GPU of this process, ``cuda:<n>``.

    Raises ValueError for CUDA where there is none.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("cuda was asked for, but torch sees no CUDA device")
    if not available or wanted == "cpu":
        return "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"


def precision(device: str) -> AbstractContextManager[object]:
    """What the network's forward pass runs in while training: bfloat16 where that is safe on CUDA, else nothing."""
    return torch.autocast("cuda", torch.bfloat16) if device.startswith("cuda") else nullcontext()


def use_mixed_precision(network: nn.Module, device: str) -> None:
    """Let ``network`` run in ``precision(device)`` from here on: its convolutions, that is. Statistics and
    normalisation, what comes out and all that follows are float32.

    For training alone: an adapted network must equal its artifact, which is float32.
    """
    if not device.startswith("cuda"):
        return
    forward = network.forward

    def mixed(*inputs: Any) -> Any:
        with precision(device):
            return forward(*inputs).float()

    for module in network.modules():
        if isinstance(module, Normalisation):
            module.register_forward_pre_hook(_first_in_float32)
    setattr(network, "forward", mixed)  # noqa: B010 - a method of this one instance


def _first_in_float32(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].float(), *inputs[1:])
