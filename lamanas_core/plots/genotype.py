"""The two cells of a genotype: for each node its inputs, with the operations on each edge."""

from collections.abc import Sequence
from typing import Any

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from lamanas_core.genotype import Edge, Genotype
from lamanas_core.plots.figures import COLOURS, FAINT, INK, new_figure

SOURCES = {"input0": "cell before last", "input1": "last cell"}
# The same colours in every plot, so that plots can be compared; in the order of the legend.
OPERATIONS = dict(
    zip(
        (
            "conv_3x3",
            "max_pool_3x3",
            "sep_conv_3x3",
            "skip",
            "dil_conv_3x3",
            "avg_pool_3x3",
            "double_sep_conv_3x3",
            "conv_1x5_5x1",
            "none",
        ),
        (*COLOURS, "#882255", FAINT),
        strict=True,
    )
)
BETWEEN = 0.55  # the gap between nodes, in rows
THINNEST, THICKEST = 0.36, 0.80  # bars, in rows: even the bar of an edge with weight 0 has room for a line of text
NODE_AT, NODE_WIDTH = 1.18, 0.26
LABELLED_FROM = 0.12  # the smallest share of a bar that has room for a number


def draw(genotype: Genotype) -> Figure:
    """The normal and the reduction cell side by side.

    A row is a kept edge: its source, a bar, and the node it leads to. The bar's thickness is the edge's weight, and its
    sections are the operations' shares; the missing part was pruned.
    """
    cells = {"normal cell": genotype.normal, "reduction cell": genotype.reduction}
    names = {o.name for cell in cells.values() for node in cell for edge in node for o in edge.operations}
    rows = max(sum(map(len, cell)) + BETWEEN * len(cell) for cell in cells.values())
    figure = new_figure(11.0, 0.9 + 0.42 * rows)
    for axes, (title, cell) in zip(figure.subplots(1, 2), cells.items(), strict=True):
        axes.set_title(title, color=INK, fontsize=11)
        axes.set_axis_off()
        axes.set_xlim(-0.42, NODE_AT + NODE_WIDTH + 0.03)
        axes.set_ylim(rows - BETWEEN, -0.6)
        row = 0.0
        for number, edges in enumerate(cell):
            _node(axes, number, edges, row)
            row += len(edges) + BETWEEN
    handles = [Patch(color=colour, label=_label(name)) for name, colour in OPERATIONS.items() if name in names]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9, labelcolor=INK
    )
    return figure


def _node(axes: Any, number: int, edges: Sequence[Edge], first: float) -> None:
    middle = first + (len(edges) - 1) / 2
    box = FancyBboxPatch(
        (NODE_AT, middle - 0.4), NODE_WIDTH, 0.8, boxstyle="round,pad=0.02", facecolor="white", edgecolor=INK
    )
    axes.add_patch(box)
    axes.text(NODE_AT + NODE_WIDTH / 2, middle, f"node {number}", ha="center", va="center", fontsize=9, color=INK)
    for i, edge in enumerate(edges):
        _edge(axes, edge, first + i, middle)


def _edge(axes: Any, edge: Edge, row: float, node_at: float) -> None:
    source = SOURCES.get(edge.source, edge.source.replace("node", "node "))
    axes.text(-0.03, row, source, ha="right", va="center", fontsize=9, color=INK)
    left = 0.0
    for operation in edge.operations:
        axes.barh(
            row,
            operation.weight,
            THINNEST + (THICKEST - THINNEST) * min(edge.weight, 1.0),
            left,
            color=OPERATIONS[operation.name],
            edgecolor="white",
            linewidth=0.8,
        )
        if operation.weight >= LABELLED_FROM:
            label = f"{100 * operation.weight:.0f} %"
            ink = _ink_on(OPERATIONS[operation.name])
            axes.text(left + operation.weight / 2, row, label, ha="center", va="center", fontsize=7.5, color=ink)
        left += operation.weight
    arrow = FancyArrowPatch(
        (left + 0.01, row),
        (NODE_AT - 0.02, node_at),
        arrowstyle="-|>",
        mutation_scale=9,
        color=INK,
        linewidth=0.4 + 1.6 * min(edge.weight, 1.0),
        shrinkA=0,
        shrinkB=2,
    )
    axes.add_patch(arrow)


def _label(operation: str) -> str:
    return operation.replace("_", " ")


def _ink_on(colour: str) -> str:
    """Dark text on light colours, otherwise white, by BT.709 luma (weights applied to gamma-encoded values)."""
    red, green, blue = to_rgb(colour)
    return INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.55 else "white"
