"""Which images of a support set a step learns from."""

import torch
from torch import Tensor


def drawn(labels: Tensor, count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """``count`` batches of ``size`` rows (int64, in order): the support set in a random order, again and again."""
    n, rows = len(labels), []
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(count):
        while len(order) < min(size, n):
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        rows.append(order[:size].sort().values)
        order = order[size:]
    return rows


def balanced(labels: Tensor, ways: int, count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """``count`` batches of at most ``size`` rows, the same number of images of every class as far as it has them."""
    everything = torch.arange(len(labels))
    batches = []
    for _ in range(count):
        members = [everything[labels == label] for label in range(ways)]
        picked = [rows[torch.randperm(len(rows), generator=generator)[: size // ways]] for rows in members]
        batches.append(torch.cat(picked).sort().values)
    return batches
