"""Timing on a shared machine: contestants run in turns, and each time is reported with the matrix-product rate."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

SIDE = 1024
# The group of a profiled operator, by a part of its name; the first match counts.
GROUPS = {
    "batch_norm": "normalisation",
    "conv": "convolution",
    "pool": "pooling",
    "mm": "matrix product",
    "linear": "matrix product",
    "copy": "copying",
    "cat": "copying",
    "clone": "copying",
}
OTHER = "elementwise and other"


def gemm_gflops(products: int = 20) -> float:
    """GFLOP/s of the product of two 1024 x 1024 float32 matrices: the median of ``products``."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    torch.mm(a, b)
    seconds = []
    for _ in range(products):
        started = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - started)
    return 2 * SIDE**3 / statistics.median(seconds) / 1e9


def in_turns(contestants: Mapping[str, Callable[[], Any]], runs: int) -> dict[str, dict[str, float]]:
    """Times every contestant ``runs`` times; each round runs all of them once. The caller warms them up.

    Returns for each: the median ``seconds``, ``min`` and ``max``; ``cpu_seconds``, the median processor time, which
    excludes waiting for other programs; ``gemm_gflops``, measured just before and after each run; and ``cost``, the
    median of seconds x the mean of those two rates, in GFLOP-equivalents.
    """
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    before = gemm_gflops()
    for _ in range(runs):
        for name, contestant in contestants.items():
            started, busy = time.perf_counter(), time.process_time()
            contestant()
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - busy)
            after = gemm_gflops()
            rates[name].append((before + after) / 2)
            before = after
    return {
        name: {
            "seconds": statistics.median(wall[name]),
            "min": min(wall[name]),
            "max": max(wall[name]),
            "cpu_seconds": statistics.median(cpu[name]),
            "gemm_gflops": statistics.median(rates[name]),
            "cost": statistics.median(s * rate for s, rate in zip(wall[name], rates[name], strict=True)),
        }
        for name in contestants
    }


def counted_gflop(work: Callable[[], Any]) -> float:
    """GFLOP of the convolutions and matrix products in ``work``; other operations are not counted."""
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return float(counter.get_total_flops()) / 1e9


def where_time_goes(work: Callable[[], Any]) -> dict[str, float]:
    """Each operator group's share of the processor time of one profiled run, largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    spent: dict[str, float] = {}
    for event in profiler.key_averages():
        name = event.key.lower()
        group = next((group for part, group in GROUPS.items() if part in name), OTHER)
        spent[group] = spent.get(group, 0.0) + event.self_cpu_time_total
    total = sum(spent.values())
    return {group: round(t / total, 3) for group, t in sorted(spent.items(), key=lambda item: -item[1])}


def peak_memory_mb() -> float:
    """The peak resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if platform.system() == "Darwin" else peak * 1024 / 1e6, 1)


def machine() -> dict[str, Any]:
    """The machine and its load average over the last minute."""
    return {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }
