"""Gaussian classes with a shared covariance, shrunk towards a meta-learned prior: for any number of classes and images.

Features x are compared as z of length 1 (``heads.metric``). With n_c images in class c and C classes, c̄ the mean of the
class means z̄_c, and r_i the deviation of image i from its class mean:

    class means    μ_c = c̄ + n_c / (n_c + κ) (z̄_c - c̄)
    covariance     Σ = (ν σ² I + Σ_i r_i r_iᵀ + Σ_i S_i) / (ν + N - C)
    logits         (z - c̄)ᵀ Σ⁻¹ (μ_c - c̄) - (μ_c - c̄)ᵀ Σ⁻¹ (μ_c - c̄) / 2

S_i is the mean of s sᵀ over the deviations s of the crops of image i from it, and 0 without crops: they show what a
single image cannot, but are no images of their own, so that N does not count them. An unlabelled image counts in each
class by its share (``base.Unlabelled``), and in N by the sum of its shares.

This is linear discriminant analysis with a prior: the covariance that the images show counts for N - C images, the
isotropic prior for ν, and class means are pulled to their mean as by κ images. With one image per class and no crops
the prior alone decides. All of it depends on the images through their inner products only, of which there are few, so
that nothing of size d x d is computed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamanas_core.config import TaskLearnerConfig
from lamanas_core.heads.base import Head, LossNetwork, Support, Tensors
from lamanas_core.heads.distances import DistanceHead
from lamanas_core.heads.metric import DIRECTIONS, Metric, centre_and_directions
from lamanas_core.heads.prototypes import class_means
from lamanas_core.losses.invariant import LearnedLoss
from lamanas_core.onnx_writer import OnnxWriter, array, rounded

LEAST = 1e-12  # a lower bound on the sum of an image's shares, by which they are divided


class GaussianPrior(nn.Module):
    """The head's parameters in θ, for features of dimension d.

    ``centre``, ``log_scales`` and ``directions``: those of the ``Metric``; the scalars ``log_pull``: log κ,
    ``log_weight``: log ν, in images, and ``log_variance``: log σ². The scalars start where cross-entropy on five sets
    of photos has brought them.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(features))
        self.log_scales = nn.Parameter(torch.zeros(features))
        self.directions = nn.Parameter(torch.zeros(DIRECTIONS, features))
        self.log_pull = nn.Parameter(torch.tensor(-0.5))
        self.log_weight = nn.Parameter(torch.tensor(3.0))
        self.log_variance = nn.Parameter(torch.tensor(-4.5))


@dataclass(frozen=True)
class FittedGaussian(DistanceHead):
    """A linear layer on z, which ``metric`` computes. ``means``: z̄_c, (ways, d)."""

    metric: Metric
    means: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) -> (n, ways)."""
        return super().logits(self.metric(features))

    def distances(self, features: Tensor) -> Tensor:
        """Features (n, d) -> (n, ways): squared Euclidean distances of z to the class means."""
        z = self.metric(features)
        return 1 + self.means.square().sum(1) - 2 * z @ self.means.T

    def stored(self) -> Self:
        return replace(self, weight=rounded(self.weight), means=rounded(self.means))

    def weight_onnx(self, writer: OnnxWriter) -> str:
        return writer.in_8_bits(array(self.weight))

    def layer_input(self, writer: OnnxWriter, features: str) -> str:
        return self.metric.onnx(writer, features, "unit_length")

    def distances_onnx(self, writer: OnnxWriter, features: str) -> str:
        offsets = writer.constant(array(1 + self.means.square().sum(1)))
        return writer.node("Gemm", ["unit_length", writer.in_8_bits(array(self.means)), offsets], alpha=-2.0, transB=1)


class GaussianHead(Head):
    """A head for any number of classes and images per class; see the module's docstring."""

    leaves_one_out = True
    measures_novelty = True
    initial_scale = 0.2

    def layer(self, features: int) -> nn.Module | None:
        return GaussianPrior(features)

    def classes(self) -> int | None:
        return None

    def compared(self, theta: Mapping[str, Tensor], features: Tensor) -> Tensor:
        return Metric.of(theta)(features)

    def prior_of(self, sets: Sequence[tuple[Tensor, Tensor]]) -> Tensors:
        centre, directions = centre_and_directions(sets)
        return {"head.centre": centre, "head.directions": directions}

    def stored(self, theta: Tensors) -> Tensors:
        return theta | {"head.directions": rounded(theta["head.directions"])}

    def support_logits(self, theta: Mapping[str, Tensor], support: Support, scale: Tensor | float) -> Tensor:
        """Leave-one-out logits, (n, ways), from inner products; the only image of a class is not left out.

        In float64, since the effect of leaving out one of few images is a small difference of large numbers.
        """
        z = self.compared(theta, support.features)
        logits = leave_one_out_logits((z @ z.T).double(), support.labels, support.ways, *_prior(theta))
        return scale * logits.to(z)

    def fit(self, theta: Mapping[str, Tensor], support: Support, scale: Tensor) -> FittedGaussian:
        support = self._in_z(theta, support)
        z, unlabelled = support.features, support.unlabelled
        pull, weight, variance = _prior(theta)
        means, sizes = class_means(support)
        middle = means.mean(0)
        pulled = (sizes / (sizes + pull))[:, None] * (means - middle)
        deviations = _deviations(support, means)
        # (ρI + RᵀR)⁻¹ = (I - Rᵀ(ρI + RRᵀ)⁻¹R) / ρ with ρ = νσ² and the rows of R the deviations.
        spread = weight * variance
        inner = deviations @ deviations.T + spread * torch.eye(len(deviations), dtype=z.dtype, device=z.device)
        turned = pulled - torch.linalg.solve(inner, deviations @ pulled.T).T @ deviations
        images = len(z) if unlabelled is None else len(z) + unlabelled.shares.sum()
        certainty = scale * (weight + images - support.ways) / spread
        layer = certainty * turned
        bias = -layer @ middle - (layer * pulled).sum(1) / 2
        return FittedGaussian(layer, bias, sizes, Metric.of(theta), means)

    def _in_z(self, theta: Mapping[str, Tensor], support: Support) -> Support:
        """``support`` with z in place of all features."""
        crops, unlabelled = support.crops, support.unlabelled
        if crops is not None:
            crops = self.compared(theta, crops.flatten(0, 1)).view_as(crops)
        if unlabelled is not None:
            unlabelled = replace(unlabelled, features=self.compared(theta, unlabelled.features))
        return replace(support, features=self.compared(theta, support.features), crops=crops, unlabelled=unlabelled)

    def loss_network(self, task: TaskLearnerConfig, generator: torch.Generator | None) -> LossNetwork:
        return LearnedLoss(task.loss, task.residual, task.hidden, generator)


def _deviations(support: Support, means: Tensor) -> Tensor:
    """The rows, (n + m + n v, d), whose scatter is Σ_i r_i r_iᵀ + Σ_i S_i: the deviations r_i of n images and m
    unlabelled ones from the means of their classes, and s / √v of the v crops of each image.

    That of an unlabelled image is from the mean of the classes weighted by its shares, times the root of their sum, so
    that it counts as that many images. Between which of them it is unsure is no spread within classes, and left out.
    """
    z, crops, unlabelled = support.features, support.crops, support.unlabelled
    rows = [z - means[support.labels]]
    if unlabelled is not None:
        counted = unlabelled.shares.sum(1, keepdim=True)
        nearest = (unlabelled.shares / counted.clamp(min=LEAST)) @ means
        rows.append(counted.sqrt() * (unlabelled.features - nearest))
    if crops is not None:
        rows.append(((crops - z[:, None]) / math.sqrt(crops.shape[1])).flatten(0, 1))
    return torch.cat(rows)


def _prior(theta: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """κ, ν and σ²."""
    return theta["head.log_pull"].exp(), theta["head.log_weight"].exp(), theta["head.log_variance"].exp()


def leave_one_out_logits(
    products: Tensor, labels: Tensor, ways: int, pull: Tensor, weight: Tensor, variance: Tensor
) -> Tensor:
    """The logits of each support image under the head that is fitted to the others: (n, ways).

    ``products``: the inner products of all z, (n, n); ``labels``: int64 (n,); ``pull``, ``weight``, ``variance``: κ, ν
    and σ². The only image of a class is not left out, since the class would have none without it.

    Vectors are written as coefficients of the n images. Without image i, the scatter Σ_j r_j r_jᵀ loses
    n_c / (n_c - 1) r_i r_iᵀ, a change of rank 1 (Sherman and Morrison).
    """
    n = len(products)
    identity = torch.eye(n, dtype=products.dtype, device=products.device)
    of_class = F.one_hot(labels, ways).to(products)
    sizes = of_class.sum(0)
    means = of_class.T / sizes[:, None]  # (ways, n)
    own_size, alone = sizes[labels], sizes[labels] == 1
    others = (own_size - 1).clamp(min=1)
    deviations = identity - of_class @ means  # R, (n, n)
    spread = weight * variance
    # uᵀ H v = ρ uᵀ Σ'⁻¹ v for coefficients u and v, where Σ' = ρI + RᵀR of all images.
    across = products @ deviations.T
    metric = products - across @ torch.linalg.solve(deviations @ across + spread * identity, across.T)
    # Without image i: the mean of its class, the middle of all classes, and the pulled means, (n, ways, n).
    own_mean = torch.where(alone[:, None], identity, (own_size[:, None] * means[labels] - identity) / others[:, None])
    middle = means.mean(0) + (own_mean - means[labels]) / ways
    pulled = (sizes / (sizes + pull))[None, :, None] * (means - middle[:, None])
    own_share = torch.where(alone, 1 / (1 + pull), others / (others + pull))
    pulled = torch.where(of_class[:, :, None].bool(), (own_share[:, None] * (own_mean - middle))[:, None], pulled)
    image = identity - middle
    seen = pulled @ metric  # (n, ways, n)
    from_own = deviations @ metric
    factor = torch.where(alone, torch.zeros_like(own_size), own_size / others / spread)
    change = (factor / (1 - factor * (from_own * deviations).sum(1)))[:, None]
    along_means, along_image = (seen @ deviations[:, :, None]).squeeze(2), (from_own * image).sum(1)
    to_image = (seen @ image[:, :, None]).squeeze(2) + change * along_means * along_image[:, None]
    to_itself = (seen * pulled).sum(2) + change * along_means.square()
    images = weight + n - ways - (~alone).to(products)
    logits: Tensor = (images / spread)[:, None] * (to_image - to_itself / 2)
    return logits
