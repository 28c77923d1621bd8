"""Numbers that sum up answers: means with intervals, calibration error, AUROC."""

import math

import numpy as np
import numpy.typing as npt

BINS = 15

Floats = npt.NDArray[np.float32]


def expected_calibration_error(best: Floats, right: npt.NDArray[np.bool_]) -> float:
    """Mean gap between the best probability (n,) and accuracy over 15 equal bins, weighted by their numbers."""
    bins = np.minimum((best * BINS).astype(int), BINS - 1)
    gaps = [abs(best[bins == i].mean() - right[bins == i].mean()) * (bins == i).mean() for i in set(bins.tolist())]
    return float(sum(gaps))


def auroc(known: Floats, novel: Floats) -> float:
    """The chance that a novel image scores higher than a known one, ties counting half (Mann and Whitney's U)."""
    values, counts = np.unique(np.concatenate([known, novel]), return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    total = float(ranks[np.searchsorted(values, novel)].sum())
    return (total - len(novel) * (len(novel) + 1) / 2) / (len(known) * len(novel))


def mean_and_interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval (normal; 0 for a single value)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, 1.96 * math.sqrt(variance / len(values))
