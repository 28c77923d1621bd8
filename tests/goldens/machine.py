"""The machine and the software versions that the last bits of results depend on."""

import platform
from pathlib import Path

import onnxruntime
import torch


def machine() -> dict[str, str]:
    """The processor, the instruction set that torch uses on it, and the versions of torch and onnxruntime.

    Libraries choose the size of their blocks, and with it the order of sums, by the exact model and its caches, which
    have the same name on many virtual machines.
    """
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    told = [found[name] for name in ("model name", "cpu family", "model", "stepping", "cache size") if name in found]
    return {
        "processor": ", ".join(told) or platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
