"""The discrete cells read off the architecture parameters α, as plain data."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ChosenOperation:
    """One operation that was kept on an edge, with its share of the edge (softmax of α), 0 to 1."""

    name: str
    weight: float


@dataclass(frozen=True)
class Edge:
    """An edge that was kept: where it comes from, its weight among the node's inputs, its operations.

    ``source`` is ``"input0"`` (the cell before the last), ``"input1"`` (the last cell) or ``"node<i>"``.
    """

    source: str
    weight: float
    operations: tuple[ChosenOperation, ...]


@dataclass(frozen=True)
class Genotype:
    """The normal and the reduction cell: for each, a tuple of nodes, each a tuple of kept edges."""

    normal: tuple[tuple[Edge, ...], ...]
    reduction: tuple[tuple[Edge, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """``{"normal": [node, ...], "reduction": [node, ...]}``, a node being ``{"inputs": [edge, ...]}``."""

        def cell(nodes: tuple[tuple[Edge, ...], ...]) -> list[dict[str, Any]]:
            return [{"inputs": [asdict(edge) for edge in node]} for node in nodes]

        return {"normal": cell(self.normal), "reduction": cell(self.reduction)}
