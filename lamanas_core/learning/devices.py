"""Which device to compute on."""

import torch


def choose_device(wanted: str) -> str:
    """``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``. Raises ValueError for CUDA where there is none."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("LAMANAS_DEVICE is cuda, but torch sees no CUDA device")
    return "cuda" if available and wanted != "cpu" else "cpu"
