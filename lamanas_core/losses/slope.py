"""Initialisation of learned losses: L_φ must initially increase where cross-entropy increases."""

from itertools import cycle

import torch
import torch.nn.functional as F

from lamanas_core.losses.invariant import LearnedLoss
from lamanas_core.losses.paper import PaperLoss


def turn_slope(loss: LearnedLoss | PaperLoss) -> bool:
    """Negate φ's output layer, in place, if L_φ decreases where cross-entropy increases. Returns whether φ was changed.

    Far from 0 the final ELU is nonlinear, and L_φ may decrease with either sign; the output layer is then also halved
    until it does not.
    """
    if loss.kind == "cross_entropy" or slope_along_entropy(loss) >= 0:
        return False
    factors = cycle((-1.0, 0.5))
    with torch.no_grad():
        while slope_along_entropy(loss) < 0:
            loss.output.weight.mul_(next(factors))
    return True


@torch.enable_grad()
def slope_along_entropy(loss: LearnedLoss | PaperLoss) -> float:
    """⟨∇_z L_φ, ∇_z H⟩ on random logits z, (64, ways), from a fixed seed; H is cross-entropy.

    ways is 5, or that of a loss network for a fixed number of classes.
    """
    ways = loss.ways if isinstance(loss, PaperLoss) else 5
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, ways, generator=generator).to(loss.output.weight).requires_grad_()
    labels = torch.arange(64) % ways
    (learned,) = torch.autograd.grad(loss(logits, labels, 0.0, None)[0], logits)
    (entropy,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
    return float((learned * entropy).sum())
