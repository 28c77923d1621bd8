"""Inductive batch normalisation: the moments are the support set's, never the queries'."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamanas_core.search.batch_norm import EPSILON, BatchNorm, SupportNorm

# Mean and variance of one normalisation layer, each (channels,); and those of a part of the network, in its own order.
Moments = tuple[Tensor, Tensor]
PartMoments = tuple[Moments, ...]
# Scale and shift, each float32 (channels,), that a normalisation comes down to under fixed moments.
Folded = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Batch:
    """How a forward pass takes the moments where it is given none.

    ``support``: the first rows of the batch, which set them; all rows are normalised by them, so that support and query
    images can share one pass. None: all rows set them. ``double_backward``: the pass will be differentiated twice, or
    in forward mode; it must not hold queries then. ``stacked``: it runs under ``torch.func.vmap``, which knows no
    memory formats.
    """

    support: int | None = None
    double_backward: bool = False
    stacked: bool = False


ALL_ROWS = Batch()


class Normalisation(nn.Module):
    """y = (x - mean) / sqrt(var + 1e-5) * weight + bias per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Tensor, moments: Moments | None, batch: Batch, gain: Tensor | None = None
    ) -> tuple[Tensor, Moments]:
        """x, float (n, channels, h, w), normalised by ``moments``, or by those of ``batch`` where that is None, and the
        moments used. ``gain``: a scalar that multiplies the result without a pass of its own.

        The result has the dtype of the weights: under autocast x can come in half precision.
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
        else:  # the same, and a tenth of a millisecond less for each
            y, mean, scale = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, EPSILON)
        return y, (mean, scale.pow(-2) - EPSILON)

    def folded(self, moments: Moments) -> Folded:
        """What the layer comes down to under ``moments``."""
        mean, var = (moment.detach().cpu().double().numpy() for moment in moments)
        scale = self.weight.detach().cpu().numpy().astype(np.float64) / np.sqrt(var + EPSILON)
        shift = self.bias.detach().cpu().numpy().astype(np.float64) - mean * scale
        return scale.astype(np.float32), shift.astype(np.float32)
