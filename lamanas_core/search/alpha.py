"""Architecture parameters α: for each edge over operations, for each node over pairs of inputs (MetaNAS, section 3)."""

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from lamanas_core.config import NetworkConfig
from lamanas_core.genotype import ChosenOperation, Edge, Genotype
from lamanas_core.search.mixing import CellWeights, EdgeWeights, Mixing, mixed
from lamanas_core.search.operations import operation_type

KINDS = ("normal", "reduction")


def pairs(node: int) -> list[tuple[int, int]]:
    """The C(node + 2, 2) pairs of inputs that node ``node`` chooses from; inputs 0 and 1 are those of the cell."""
    return list(combinations(range(node + 2), 2))


def edges(nodes: int) -> list[tuple[int, int]]:
    """(node, input) of every edge of a cell, in the order of α's rows."""
    return [(node, source) for node in range(nodes) for source in range(node + 2)]


def initial_alpha(config: NetworkConfig) -> dict[str, Tensor]:
    """α at 0, so that all operations and pairs have equal shares.

    ``<kind>.operations``: (edges, operations); ``<kind>.pairs.<node>``: (pairs,) for every node except node 0, which
    has one pair.
    """
    alpha: dict[str, Tensor] = {}
    for kind in KINDS:
        alpha[f"{kind}.operations"] = torch.zeros(len(edges(config.nodes)), len(config.operations))
        for node in range(1, config.nodes):
            alpha[f"{kind}.pairs.{node}"] = torch.zeros(len(pairs(node)))
    return alpha


def shares(alpha: Mapping[str, Tensor], kind: str, nodes: int, temperature: float) -> tuple[Tensor, Tensor]:
    """The softmax of α: operation shares (edges, operations), whose rows sum to 1, and input weights (edges,).

    The weight of an input is the probability that the node's pair contains it; a node's input weights sum to 2.
    """
    operations = torch.softmax(alpha[f"{kind}.operations"] / temperature, dim=1)
    inputs = []
    for node in range(nodes):
        if node == 0:
            inputs += [operations.new_ones(()), operations.new_ones(())]
            continue
        probability = torch.softmax(alpha[f"{kind}.pairs.{node}"] / temperature, dim=0)
        for source in range(node + 2):
            containing = [i for i, pair in enumerate(pairs(node)) if source in pair]
            inputs.append(probability[containing].sum())
    return operations, torch.stack(inputs)


def cell_weights(alpha: Mapping[str, Tensor], config: NetworkConfig, mixing: Mixing) -> CellWeights:
    """The weights of all operations in both kinds of cell (see ``mixed``), with drop-path if ``mixing`` says so."""
    found = mixed({kind: shares(alpha, kind, config.nodes, mixing.temperature) for kind in KINDS}, mixing)
    if mixing.dropped is None:
        return found
    generator = torch.Generator().manual_seed(mixing.dropped)
    return CellWeights({kind: drop_paths(weights, config, generator) for kind, weights in found.kinds.items()})


def drop_paths(weights: EdgeWeights, config: NetworkConfig, generator: torch.Generator) -> EdgeWeights:
    """Drop-path: drop each droppable operation with the probability p = ``config.drop_path``, and rescale the others.

    The drop is the same for the whole batch, so that dropped operations are not computed. A node that would lose all
    its operations keeps all of them. The weight of an operation is divided by the probability with which it is kept, so
    that its mean is the weight without drop-path: by 1 - p, or by 1 - p + p^m if all m operations of its node can be
    dropped. A node's only operation keeps its weight.
    """
    p = config.drop_path
    droppable = torch.tensor([operation_type(name).may_be_dropped for name in config.operations])
    stays = (torch.rand(weights.weights.shape, generator=generator) >= p) | ~droppable
    of_node = torch.tensor([node for node, _ in edges(config.nodes)])
    computed = torch.zeros_like(stays)
    for row, kept in enumerate(weights.kept):
        computed[row, list(kept)] = True
    scale = torch.ones(weights.weights.shape)
    for node in range(config.nodes):
        rows = of_node == node
        if not bool((stays & computed)[rows].any()):
            stays[rows] = True
        all_droppable = not bool((computed & ~droppable)[rows].any())
        others = int(computed[rows].sum()) - 1
        kept_with = 1 - p * (1 - p**others) if all_droppable else 1 - p
        scale[rows] = torch.where(droppable, 1 / kept_with, 1.0)
    remaining = tuple(tuple(o for o in kept if bool(stays[row, o])) for row, kept in enumerate(weights.kept))
    return EdgeWeights(weights.weights * scale.to(weights.weights), remaining)


def genotype(alpha: Mapping[str, Tensor], config: NetworkConfig, threshold: float) -> Genotype:
    """The discrete cells: the inputs and operations that ``threshold`` keeps at the final temperature.

    Their weights in the genotype are the shares of ``shares``, in 0..1.
    """
    chosen = cell_weights(alpha, config, Mixing(config.temperature, threshold))
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
