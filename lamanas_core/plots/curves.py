"""Training curves: loss and validation accuracy by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from lamanas_core.plots.figures import COLOURS, FAINT, INK, new_figure, tidy

HIGHEST = 101.0  # %; room for a mark at 100
STAGES = (("warm_up", "warm-up"), ("meta", "meta-training"))


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """``rows``: the lines of a run's ``curves.jsonl``. Raises ValueError where there is none."""
    if not rows:
        raise ValueError("this run has no epoch yet")
    figure = new_figure(7.2, 5.0)
    above, below = figure.subplots(2, 1, sharex=True)
    for (stage, name), colour in zip(STAGES, COLOURS, strict=False):
        own = [row for row in rows if row["stage"] == stage]
        if own:
            epochs, losses = [row["epoch"] for row in own], [row["loss"] for row in own]
            above.plot(epochs, losses, color=colour, linewidth=1.2, marker="o", markersize=2)
            middle = (epochs[0] + epochs[-1]) / 2
            above.annotate(name, (middle, 1.0), xycoords=("data", "axes fraction"), color=colour, ha="center", va="top")
    if min(row["loss"] for row in rows) > 0:
        above.set_yscale("log")
        above.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
        above.yaxis.set_major_formatter("{x:g}")
        above.yaxis.set_minor_formatter(NullFormatter())
    above.margins(y=0.15)
    above.set_ylabel("loss on the queries", color=INK)
    measured = [row for row in rows if row.get("validation_accuracy") is not None]
    values = [100 * row["validation_accuracy"] for row in measured]
    below.plot([row["epoch"] for row in measured], values, color=COLOURS[2], marker="o", markersize=4, linewidth=1.4)
    if measured:
        below.annotate(
            f"{values[-1]:.1f} %",
            (measured[-1]["epoch"], values[-1]),
            textcoords="offset points",
            xytext=(0, 7),
            ha="right",
            color=COLOURS[2],
        )
    below.margins(y=0.25)
    low, high = below.get_ylim()
    below.set_ylim(max(low, 0.0), min(high, HIGHEST))
    below.set_ylabel("validation accuracy, %", color=INK)
    below.set_xlabel("epoch", color=INK)
    begins = [row["epoch"] for row in rows if row["stage"] == "meta"]
    for axes in (above, below):
        tidy(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if begins and begins[0] > rows[0]["epoch"]:
            axes.axvline(begins[0] - 0.5, color=FAINT, linewidth=0.8, linestyle=":")
    return figure
