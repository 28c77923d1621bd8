"""Minibatches: the images of the support set that each inner step uses."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, takewhile

import torch
from torch import Tensor


def drawn(labels: Tensor, count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """``count`` batches of min(``size``, n) distinct row numbers, int64 in ascending order.

    ``labels``: int64 (n,). All rows are used in turn; whenever they are used up, they are reshuffled.
    """
    n, rows = len(labels), []
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(count):
        if len(order) < min(size, n):
            again = torch.randperm(n, generator=generator)
            left = torch.isin(again, order)  # first and, so that no batch has a row twice, last in the next order
            order = torch.cat([order, again[~left], again[left]])
        rows.append(order[:size].sort().values)
        order = order[size:]
    return rows


def balanced(labels: Tensor, ways: int, count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """``count`` batches of at most ``size`` row numbers, int64 in ascending order, balanced over the classes.

    ``labels``: int64 (n,). Each batch has ``size`` // ``ways`` random rows of every class, or all if it has fewer.

    Of more than ``size`` / 2 classes, a batch has 2 random rows of each, or its only one, of as many classes as fit.
    Alone in its batch, an image could not be left out of its class mean, and its logits would be saturated. The classes
    are used in turn; whenever they are used up, they are reshuffled.
    """
    all_rows, each = torch.arange(len(labels)), max(2, size // ways)
    members = [all_rows[labels == label] for label in range(ways)]
    shares = [min(len(rows), each) for rows in members]
    batches = []
    for classes in _in_turn(shares, count, size, generator):
        picked = [members[i][torch.randperm(len(members[i]), generator=generator)[:each]] for i in classes]
        batches.append(torch.cat(picked).sort().values)
    return batches


def _in_turn(shares: list[int], count: int, size: int, generator: torch.Generator) -> Iterator[Sequence[int]]:
    """For each of ``count`` batches the distinct classes in it: as many as fit into ``size`` rows with ``shares``."""
    if sum(shares) <= size:
        yield from [range(len(shares))] * count
        return
    order: list[int] = []
    for _ in range(count):
        if sum(shares[i] for i in order) < size:
            again = torch.randperm(len(shares), generator=generator).tolist()
            # Those left over come first and, so that no batch has a class twice, last in the next order.
            order += sorted(again, key=set(order).__contains__)
        ends = accumulate(shares[i] for i in order)
        fitting = sum(1 for _ in takewhile(lambda end: end <= size, ends))
        yield sorted(order[:fitting])
        order = order[fitting:]


def among_themselves(labels: Tensor) -> tuple[Tensor, int]:
    """The labels of a batch, int64 (b,), renumbered without gaps in the same order, and the number of classes."""
    present = torch.bincount(labels) > 0
    return (present.cumsum(0) - 1)[labels], int(present.sum())
