"""The machine and the software versions that the last bits of results depend on."""

import platform
from pathlib import Path

import onnxruntime
import torch


def machine() -> dict[str, str]:
    """The processor, the instruction set that torch uses on it, and the versions of torch and onnxruntime."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
