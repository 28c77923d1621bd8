"""A learned loss must start out rising where cross-entropy rises."""

import torch
import torch.nn.functional as F

from lamanas_core.learning.losses import LearnedLoss
from lamanas_core.learning.paper_losses import PaperLoss


def mend_slope(loss: LearnedLoss | PaperLoss) -> bool:
    """Turn φ's output over if L_φ starts out falling where cross-entropy rises; True if it had to be.

    Judged on made-up logits (5 classes, or as many as φ is for, from a fixed seed): the sign of ⟨∇_z L_φ, ∇_z H⟩.
    """
    if loss.kind == "cross_entropy":
        return False
    ways = loss.ways if isinstance(loss, PaperLoss) else 5
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, ways, generator=generator).requires_grad_()
    labels = torch.arange(64) % ways
    (learned,) = torch.autograd.grad(loss(logits, labels, 0.0, None)[0], logits)
    (entropy,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
    if (learned * entropy).sum() >= 0:
        return False
    with torch.no_grad():
        loss.output.weight.neg_()
    return True
