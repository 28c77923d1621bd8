"""Architecture parameters α: per edge over operations, per node over pairs of inputs (MetaNAS, section 3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from lamanas_core.config import NetworkConfig
from lamanas_core.genotype import ChosenOperation, Edge, Genotype
from lamanas_core.search.operations import operation_type

KINDS = ("normal", "reduction")


def pairs(node: int) -> list[tuple[int, int]]:
    """The C(node + 2, 2) pairs of inputs that node ``node`` chooses from; inputs 0 and 1 are the cell's."""
    return list(combinations(range(node + 2), 2))


def edges(nodes: int) -> list[tuple[int, int]]:
    """(node, input) of every edge of a cell, in the order in which α's rows stand."""
    return [(node, source) for node in range(nodes) for source in range(node + 2)]


def initial_alpha(config: NetworkConfig) -> dict[str, Tensor]:
    """α at 0 (all operations and pairs alike): ``<kind>.operations`` (edges, operations), ``<kind>.pairs.<node>``."""
    alpha: dict[str, Tensor] = {}
    for kind in KINDS:
        alpha[f"{kind}.operations"] = torch.zeros(len(edges(config.nodes)), len(config.operations))
        for node in range(1, config.nodes):
            alpha[f"{kind}.pairs.{node}"] = torch.zeros(len(pairs(node)))
    return alpha


@dataclass(frozen=True)
class EdgeWeights:
    """For each edge of one kind of cell: ``weights`` (edges, operations), and which of them are computed at all."""

    weights: Tensor
    kept: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class CellWeights:
    """What a forward pass needs of α, for both kinds of cell."""

    kinds: Mapping[str, EdgeWeights]


def shares(alpha: Mapping[str, Tensor], kind: str, nodes: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Softmaxed α: operation shares (edges, operations), each row summing to 1, and input weights (edges,).

    An input's weight is the probability that the chosen pair holds it: over a node's inputs they sum to 2.
    """
    operations = torch.softmax(alpha[f"{kind}.operations"] / temperature, dim=1)
    inputs = []
    for node in range(nodes):
        if node == 0:
            inputs += [operations.new_ones(()), operations.new_ones(())]
            continue
        probability = torch.softmax(alpha[f"{kind}.pairs.{node}"] / temperature, dim=0)
        for source in range(node + 2):
            holds = [i for i, pair in enumerate(pairs(node)) if source in pair]
            inputs.append(probability[holds].sum())
    return operations, torch.stack(inputs)


def cell_weights(
    alpha: Mapping[str, Tensor],
    config: NetworkConfig,
    *,
    temperature: float,
    threshold: float,
    dropping: torch.Generator | None = None,
    masked: bool = False,
) -> CellWeights:
    """Weights of every operation; inputs, then operations with a share under ``threshold`` are dropped.

    What is left of an edge (and of a node's inputs) is not rescaled; the largest of each always stays. With
    ``dropping`` paths are dropped at random (training only): see ``drop_paths``. ``masked``: what is dropped is
    computed all the same, at a weight of 0, so that which operations those are can differ under ``torch.func.vmap``.
    """
    kinds = {}
    for kind in KINDS:
        operations, inputs = shares(alpha, kind, config.nodes, temperature)
        if masked:
            kinds[kind] = _masked(operations, inputs, threshold)
            continue
        kept_inputs = inputs.detach() >= threshold
        kept: list[tuple[int, ...]] = []
        for row, kept_input in zip(operations.detach(), kept_inputs.tolist(), strict=True):
            best = int(row.argmax())
            chosen = tuple(i for i, share in enumerate(row.tolist()) if share >= threshold or i == best)
            kept.append(chosen if kept_input else ())
        weights = EdgeWeights(operations * inputs[:, None], tuple(kept))
        kinds[kind] = weights if dropping is None else drop_paths(weights, config, dropping)
    return CellWeights(kinds)


def _masked(operations: Tensor, inputs: Tensor, threshold: float) -> EdgeWeights:
    largest = operations == operations.amax(1, keepdim=True)
    stays = ((operations >= threshold) | largest) & (inputs >= threshold)[:, None]
    weights = operations * inputs[:, None]
    every = tuple(range(operations.shape[1]))
    return EdgeWeights(torch.where(stays, weights, torch.zeros_like(weights)), (every,) * len(operations))


def drop_paths(weights: EdgeWeights, config: NetworkConfig, generator: torch.Generator) -> EdgeWeights:
    """Leave out each operation that may be with probability ``drop_path``; scale those that are left up to match.

    Drawn once for the whole batch, so that what is left out is not computed. A node whose operations would all be gone
    keeps them all.
    """
    share = config.drop_path
    safe = torch.tensor([not operation_type(name).may_be_dropped for name in config.operations])
    stays = (torch.rand(weights.weights.shape, generator=generator) >= share) | safe
    of_node = torch.tensor([node for node, _ in edges(config.nodes)])
    there = torch.zeros_like(stays)
    for row, kept in enumerate(weights.kept):
        there[row, list(kept)] = True
    for node in range(config.nodes):
        if not bool((stays & there)[of_node == node].any()):
            stays[of_node == node] = True
    left = tuple(tuple(o for o in kept if bool(stays[row, o])) for row, kept in enumerate(weights.kept))
    scale = torch.where(safe, 1.0, 1 / (1 - share)).to(weights.weights)
    return EdgeWeights(weights.weights * scale, left)


def genotype(alpha: Mapping[str, Tensor], config: NetworkConfig) -> Genotype:
    """The discrete cells at the end temperature: the inputs and operations that ``cell_weights`` keeps."""
    chosen = cell_weights(alpha, config, temperature=config.temperature, threshold=config.prune_threshold)
    cells = {}
    for kind in KINDS:
        operations, inputs = shares(alpha, kind, config.nodes, config.temperature)
        nodes: list[list[Edge]] = [[] for _ in range(config.nodes)]
        for row, (node, source) in enumerate(edges(config.nodes)):
            kept = chosen.kinds[kind].kept[row]
            if not kept:
                continue
            name = f"input{source}" if source < 2 else f"node{source - 2}"
            operations_kept = tuple(ChosenOperation(config.operations[o], float(operations[row, o])) for o in kept)
            nodes[node].append(Edge(name, float(inputs[row]), operations_kept))
        cells[kind] = tuple(tuple(node) for node in nodes)
    return Genotype(cells["normal"], cells["reduction"])
