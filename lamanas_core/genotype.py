"""The genotype: the discrete cells derived from the architecture parameters α, as plain data."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ChosenOperation:
    """An operation that was kept on an edge. ``weight``: its share of the edge, the softmax of α, in 0..1."""

    name: str
    weight: float


@dataclass(frozen=True)
class Edge:
    """An edge that was kept: an input of a node, with the operations on it.

    ``source``: "input0" (the output of the cell before the previous one), "input1" (the output of the previous cell) or
    "node<i>". ``weight``: the weight of this input, 0..1; before pruning, the weights of a node's inputs sum to 2.
    """

    source: str
    weight: float
    operations: tuple[ChosenOperation, ...]


@dataclass(frozen=True)
class Genotype:
    """The normal and the reduction cell: each a tuple of nodes, a node being the tuple of its kept edges."""

    normal: tuple[tuple[Edge, ...], ...]
    reduction: tuple[tuple[Edge, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """``{"normal": [node, ...], "reduction": [node, ...]}`` where each node is ``{"inputs": [edge, ...]}``."""

        def cell(nodes: tuple[tuple[Edge, ...], ...]) -> list[dict[str, Any]]:
            return [{"inputs": [asdict(edge) for edge in node]} for node in nodes]

        return {"normal": cell(self.normal), "reduction": cell(self.reduction)}
