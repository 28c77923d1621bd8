"""Which device to compute on, and in which precision."""

import os

import torch


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


def half_precision(device: str) -> bool:
    """Whether training computes its convolutions in bfloat16: on CUDA."""
    return device.startswith("cuda")
