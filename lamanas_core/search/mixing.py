"""From the shares that α gives to inputs and operations to the weights of a forward pass."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# For each edge of a kind of cell, the indices of the operations that are computed.
Kept = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Mixing:
    """How a forward pass derives the weights of operations from α.

    ``temperature``: of the softmax over α. ``threshold``: the share (0..1) below which operations and inputs are
    dropped. ``dropped``: the seed of drop-path, None without it. ``computed``: the operations to compute, by kind of
    cell, those below the threshold with weight 0, so that they can differ between episodes under ``torch.func.vmap``;
    None: those below it are skipped.
    """

    temperature: float
    threshold: float
    dropped: int | None = None
    computed: Mapping[str, Kept] | None = None


@dataclass(frozen=True)
class EdgeWeights:
    """The weights of the operations in one kind of cell.

    ``weights``: (edges, operations). ``kept``: the operations that are computed.
    """

    weights: Tensor
    kept: Kept


@dataclass(frozen=True)
class CellWeights:
    """The weights that a forward pass derives from α, by kind of cell."""

    kinds: Mapping[str, EdgeWeights]


def mixed(by_kind: Mapping[str, tuple[Tensor, Tensor]], mixing: Mixing) -> CellWeights:
    """The weights of all operations: an operation's share times the weight of its edge's input.

    ``by_kind``: of each kind of cell the shares of operations, (edges, operations), and the weights of inputs,
    (edges,). Edges whose input weight is below the threshold are dropped, and on the other edges operations with a
    share below it, except for the largest. The remaining weights are not rescaled.
    """
    threshold = mixing.threshold
    if mixing.computed is not None:
        computed = mixing.computed
        return CellWeights({kind: _masked(*found, threshold, computed[kind]) for kind, found in by_kind.items()})
    # Read all at once: on a GPU, each reading waits for it.
    table = torch.cat([torch.cat([operations, inputs[:, None]], 1) for operations, inputs in by_kind.values()])
    rows = iter(table.detach().tolist())
    kinds = {}
    for kind, (operations, inputs) in by_kind.items():
        kept = tuple(_kept(row[:-1], row[-1], threshold) for row in (next(rows) for _ in inputs))
        kinds[kind] = EdgeWeights(operations * inputs[:, None], kept)
    return CellWeights(kinds)


def _kept(of_operations: list[float], of_input: float, threshold: float) -> tuple[int, ...]:
    """The operations that are computed on an edge, by their shares and the weight of its input."""
    if of_input < threshold:
        return ()
    best = of_operations.index(max(of_operations))
    return tuple(i for i, share in enumerate(of_operations) if share >= threshold or i == best)


def _masked(operations: Tensor, inputs: Tensor, threshold: float, computed: Kept) -> EdgeWeights:
    largest = operations == operations.amax(1, keepdim=True)
    stays = ((operations >= threshold) | largest) & (inputs >= threshold)[:, None]
    weights = operations * inputs[:, None]
    return EdgeWeights(torch.where(stays, weights, torch.zeros_like(weights)), computed)
