"""A learned loss must start out rising where cross-entropy rises."""

from itertools import cycle

import torch
import torch.nn.functional as F

from lamanas_core.losses.invariant import LearnedLoss
from lamanas_core.losses.paper import PaperLoss


def turn_slope(loss: LearnedLoss | PaperLoss) -> bool:
    """Turn φ's output over if L_φ starts out falling where cross-entropy rises; True if it had to be.

    Where the loss is far from 0 its ELU bends it, and both ways may fall; so it is made smaller until one does not.
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
    """⟨∇_z L_φ, ∇_z H⟩ on made-up logits (64 examples of 5 classes, or of as many as φ is for, from a fixed seed)."""
    ways = loss.ways if isinstance(loss, PaperLoss) else 5
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, ways, generator=generator).to(loss.output.weight).requires_grad_()
    labels = torch.arange(64) % ways
    (learned,) = torch.autograd.grad(loss(logits, labels, 0.0, None)[0], logits)
    (entropy,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
    return float((learned * entropy).sum())
