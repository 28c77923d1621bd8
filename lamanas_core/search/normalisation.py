"""Inductive batch normalisation: the moments are computed from the support set, never from queries."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamanas_core.search.batch_norm import EPSILON, BatchNorm, SupportNorm

# Mean and variance of a normalisation layer, each (channels,).
Moments = tuple[Tensor, Tensor]
# The moments of all normalisation layers in a part of the network, in an order that the part defines.
PartMoments = tuple[Moments, ...]
# Scale and shift, each float32 (channels,): a normalisation layer with fixed moments as an affine function.
Folded = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Batch:
    """How a forward pass computes moments if none are given.

    ``support``: the moments are those of this many first rows of the batch, and all rows are normalised with them, so
    that support and query images can share a pass. None: they are those of all rows. ``double_backward``: the pass will
    be differentiated twice or in forward mode; it must not contain queries. ``stacked``: the pass runs under
    ``torch.func.vmap``, which does not support memory formats.
    """

    support: int | None = None
    double_backward: bool = False
    stacked: bool = False


ALL_ROWS = Batch()


class Normalisation(nn.Module):
    """y = (x - mean) / sqrt(var + 1e-5) * weight + bias, per channel. ``weight`` and ``bias``: (channels,), in θ."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Tensor, moments: Moments | None, batch: Batch, gain: Tensor | None = None
    ) -> tuple[Tensor, Moments]:
        """Normalise ``x``, float (n, channels, h, w), with ``moments``; None: with those of ``batch``.

        Returns the result and the moments used. ``gain``: a scalar that multiplies the result at no extra cost. The
        result has the dtype of the weights, although under autocast ``x`` can be in bfloat16.
        """
        x = x.to(self.weight.dtype)
        weight, bias = (self.weight, self.bias) if gain is None else (self.weight * gain, self.bias * gain)
        if moments is not None:
            return F.batch_norm(x, *moments, weight, bias, False, 0.0, EPSILON), moments
        y: Tensor
        if batch.support is not None and len(x) != batch.support:
            y, mean, var = SupportNorm.apply(x, weight, bias, batch.support)  # type: ignore[no-untyped-call]
            return y, (mean, var)
        if batch.double_backward:
            y, mean, scale = BatchNorm.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        else:  # the same result, 0.1 ms faster per call
            y, mean, scale = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, EPSILON)
        return y, (mean, scale.pow(-2) - EPSILON)

    def folded(self, moments: Moments) -> Folded:
        """The scale and shift of the layer with fixed ``moments``."""
        mean, var = (moment.detach().cpu().double().numpy() for moment in moments)
        scale = self.weight.detach().cpu().numpy().astype(np.float64) / np.sqrt(var + EPSILON)
        shift = self.bias.detach().cpu().numpy().astype(np.float64) - mean * scale
        return scale.astype(np.float32), shift.astype(np.float32)
