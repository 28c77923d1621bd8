"""Metrics: confidence intervals, expected calibration error, AUROC."""

import math

import numpy as np
import numpy.typing as npt

BINS = 15

Floats = npt.NDArray[np.float32]


def expected_calibration_error(confidences: Floats, correct: npt.NDArray[np.bool_]) -> float:
    """The expected calibration error, in 0..1, with 15 bins of equal width.

    ``confidences``: the largest probability of each prediction, (n,) in 0..1; ``correct``: bool (n,).
    """
    bins = np.minimum((confidences * BINS).astype(int), BINS - 1)
    gaps = [
        abs(confidences[bins == i].mean() - correct[bins == i].mean()) * (bins == i).mean() for i in set(bins.tolist())
    ]
    return float(sum(gaps))


def auroc(known: Floats, novel: Floats) -> float:
    """The area under the ROC curve, in 0..1, of the scores ``known`` (n,) against ``novel`` (m,), n, m > 0.

    It is the probability that a novel image scores higher than a known one, with ties counted half (the Mann-Whitney U
    statistic divided by n m).
    """
    values, counts = np.unique(np.concatenate([known, novel]), return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    total = float(ranks[np.searchsorted(values, novel)].sum())
    return (total - len(novel) * (len(novel) + 1) / 2) / (len(known) * len(novel))


def mean_and_interval(values: list[float]) -> tuple[float, float]:
    """The mean, and the half-width of its 95 % confidence interval by the normal approximation (0 for one value)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, 1.96 * math.sqrt(variance / len(values))


def rounded_interval(values: list[float]) -> list[float]:
    """``mean_and_interval`` as documents have it, to five decimals."""
    return [round(number, 5) for number in mean_and_interval(values)]
