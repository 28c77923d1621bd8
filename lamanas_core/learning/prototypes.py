"""Class prototypes, and logits from squared distances to those made without the image itself."""

import torch
from torch import Tensor


def prototypes(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Mean feature of each class: features (n, d), labels int64 (n,) -> (ways, d)."""
    counts = torch.bincount(labels, minlength=ways).to(features)
    sums = features.new_zeros(ways, features.shape[1]).index_add(0, labels, features)
    return sums / counts[:, None]


def leave_one_out_logits(features: Tensor, labels: Tensor, ways: int, scale: Tensor | float) -> Tensor:
    """Each support image against prototypes made without it, (n, ways).

    A class with one image keeps its plain prototype: without that image it would have none.
    """
    d = features.shape[1]
    centres = prototypes(features, labels, ways)
    plain = -(features.square().sum(1)[:, None] - 2 * features @ centres.T + centres.square().sum(1)) * (scale / d)
    counts = torch.bincount(labels, minlength=ways).to(features)[labels]
    # Without the image itself its own prototype lies count / (count - 1) times as far away.
    stretch = torch.where(counts > 1, counts / (counts - 1).clamp(min=1), torch.ones_like(counts)).square()
    own = torch.nn.functional.one_hot(labels, ways).bool()
    return torch.where(own, plain * stretch[:, None], plain)
