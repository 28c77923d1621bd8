"""The device to compute on, and the precision."""

import os

import torch


def choose_device(wanted: str) -> str:
    """torch's name of the device for ``wanted``: "auto", "cpu" or "cuda".

    "auto" prefers CUDA. Under torchrun the GPU is that of this process, "cuda:<local rank>". Raises ValueError if
    "cuda" is requested but not available.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("cuda was requested, but torch finds no CUDA device")
    if not available or wanted == "cpu":
        return "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"


def half_precision(device: str) -> bool:
    """Whether training computes convolutions in bfloat16: true on CUDA."""
    return device.startswith("cuda")
