"""Contours of the learned loss after some meta-epochs, with those of cross-entropy."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from lamanas_core.plots.figures import INK, new_figure, tidy

if TYPE_CHECKING:
    from lamanas_core.measure.landscape import Landscape

LEVELS = 14
COLUMNS = 3


def draw(landscape: "Landscape") -> Figure:
    """A panel for each φ and one for cross-entropy. Each has its own scale, since the scale of L_φ is arbitrary."""
    panels = {f"learned loss, {name}": values for name, values in landscape.learned.items()}
    panels["cross-entropy"] = landscape.entropy
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(3.6 * columns, 3.2 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for number, (axes, (title, values)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        filled = axes.contourf(landscape.a, landscape.b, values, LEVELS, cmap="viridis")
        axes.contour(landscape.a, landscape.b, values, LEVELS, colors="white", linewidths=0.4, alpha=0.6)
        axes.plot(0, 0, marker="o", markersize=6, color="white", markeredgecolor=INK)
        axes.set_title(title, fontsize=10, color=INK)
        figure.colorbar(filled, ax=axes, shrink=0.9).ax.tick_params(labelsize=7, colors=INK)
        tidy(axes)
        if number % columns == 0:
            axes.set_ylabel(_axis_label("2nd", landscape.explained[1]), fontsize=8, color=INK)
        if number + columns >= len(panels):
            axes.set_xlabel(_axis_label("1st", landscape.explained[0]), fontsize=8, color=INK)
            axes.tick_params(labelbottom=True)
    figure.supxlabel("dot: the support set as it is; right and up: towards the true class", fontsize=8, color=INK)
    return figure


def _axis_label(number: str, share: float) -> str:
    return f"{number} principal direction of the logits ({100 * share:.0f} %)"
