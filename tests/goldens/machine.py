"""What the last bits of a result depend on."""

import platform
from pathlib import Path

import onnxruntime
import torch


def machine() -> dict[str, str]:
    """The processor, the instructions that torch uses on it, and the versions of what computes."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
