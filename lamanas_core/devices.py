"""The device to compute on, and the precision."""

import os

import torch


def choose_device(wanted: str) -> str:
    """torch's name of the device for ``wanted``: "auto", "cpu" or "cuda"; call it before the device is used.

    "auto" prefers CUDA. Under torchrun the GPU is that of this process, "cuda:<local rank>". A GPU is made
    ``reproducible``. Raises ValueError if "cuda" is requested but not available.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("cuda was requested, but torch finds no CUDA device")
    if not available or wanted == "cpu":
        return "cpu"
    reproducible()
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"


def reproducible() -> None:
    """Let GPUs compute equal bits from equal arguments, and float32 in its full precision instead of TF32.

    From then on, an operation for which torch has no deterministic algorithm raises RuntimeError.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def half_precision(device: str) -> bool:
    """Whether training computes convolutions in bfloat16: true on CUDA."""
    return device.startswith("cuda")
