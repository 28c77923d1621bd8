"""Minibatches: the images of the support set that each inner step uses."""

import torch
from torch import Tensor


def drawn(labels: Tensor, count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """``count`` batches of min(``size``, n) row numbers, int64 in ascending order, drawn without replacement.

    ``labels``: int64 (n,). Whenever the n rows are used up, they are reshuffled.
    """
    n, rows = len(labels), []
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(count):
        while len(order) < min(size, n):
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        rows.append(order[:size].sort().values)
        order = order[size:]
    return rows


def balanced(labels: Tensor, ways: int, count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """``count`` batches of at most ``size`` row numbers, int64 in ascending order, balanced over the classes.

    ``labels``: int64 (n,). Each batch has ``size`` // ``ways`` random rows of every class, or all if it has fewer.
    """
    all_rows = torch.arange(len(labels))
    batches = []
    for _ in range(count):
        members = [all_rows[labels == label] for label in range(ways)]
        picked = [rows[torch.randperm(len(rows), generator=generator)[: size // ways]] for rows in members]
        batches.append(torch.cat(picked).sort().values)
    return batches
