"""The space in which features are compared: centred, scaled, and shortened where images of one class differ.

    y = (x - m) e^s          z = (y - Uᵀ U y) / ‖y - Uᵀ U y‖

m, s and U are meta-learned parameters of the head. The rows of U point in the directions in which images of one class
differ most, for example under other light, and are of length 1 at most: at 1, the direction is left out, and at 0 it
is as it was. Before a training, m and U are computed from its data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.onnx_writer import OnnxWriter, array

SHORTEST = 1e-6  # a lower bound on the length of features
DIRECTIONS = 16  # the rows of U
# How much of the variance in each direction is not learned from the data, but the mean over all directions.
SHRINKAGE = 0.5


@dataclass(frozen=True)
class Metric:
    """``centre``: m, (d,); ``log_scales``: s, (d,); ``directions``: U, (DIRECTIONS, d)."""

    centre: Tensor
    log_scales: Tensor
    directions: Tensor

    @classmethod
    def of(cls, theta: Mapping[str, Tensor]) -> Self:
        """That of the head's parameters in θ."""
        return cls(theta["head.centre"], theta["head.log_scales"], theta["head.directions"])

    def __call__(self, features: Tensor) -> Tensor:
        """z of features (n, d): (n, d), of length 1."""
        y = (features - self.centre) * self.log_scales.exp()
        return F.normalize(y - y @ self.directions.T @ self.directions, dim=1, eps=SHORTEST)

    def onnx(self, writer: OnnxWriter, features: str, output: str) -> str:
        """Write z of ``features`` (n, d) as ``output``; U is stored in 8 bits (``onnx_writer.rounded``)."""
        centred = writer.node("Sub", [features, writer.constant(array(self.centre))])
        y = writer.node("Mul", [centred, writer.constant(array(self.log_scales.exp()))])
        directions = writer.in_8_bits(array(self.directions))
        along = writer.node("Gemm", [writer.node("Gemm", [y, directions], transB=1), directions])
        return writer.unit_length(writer.node("Sub", [y, along]), SHORTEST, output)


def centre_and_directions(sets: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """m and U from data sets, each features (n, d) with their labels, int64 (n,); all count the same.

    m is the mean of the sets' means. W is the mean of the sets' covariances within classes, each divided by its trace;
    v_k are its DIRECTIONS eigenvectors with the largest eigenvalues λ_k, and λ the mean of the other eigenvalues. After
    y - UᵀU y, v_k has the variance of the others, both shrunk to the mean over all directions by SHRINKAGE.
    """
    centre = torch.stack([features.mean(0) for features, _ in sets]).mean(0)
    d = len(centre)
    within = torch.stack([_within_classes(F.normalize(x - centre, dim=1), labels) for x, labels in sets]).mean(0)
    values, vectors = torch.linalg.eigh(within.double())
    count = min(DIRECTIONS, d - 1)
    shrunk = (1 - SHRINKAGE) * values + SHRINKAGE / d
    usual = shrunk[:-count].mean()
    lengths = (1 - (usual / shrunk[-count:]).sqrt()).clamp(min=0).sqrt()
    directions = torch.zeros(DIRECTIONS, d)
    directions[:count] = (vectors[:, -count:] * lengths).T
    return centre, directions


def _within_classes(z: Tensor, labels: Tensor) -> Tensor:
    """The covariance within classes of z (n, d), divided by its trace: (d, d). 0 if no class has two images."""
    found = torch.zeros(z.shape[1], z.shape[1], dtype=z.dtype)
    for label in sorted(set(labels.tolist())):
        own = z[labels == label]
        deviations = own - own.mean(0)
        found += deviations.T @ deviations
    return found / found.trace().clamp(min=SHORTEST)
