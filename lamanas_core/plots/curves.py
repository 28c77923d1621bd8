"""Training curves: loss and validation accuracy by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from lamanas_core.plots.figures import COLOURS, FAINT, INK, new_figure, tidy

HIGHEST = 100.9  # the largest upper limit in %: room for a marker at 100 without a tick at 101
LEAST_SPAN = 4.0  # the smallest range in percentage points: noise of 20 episodes must not look like a trend
DEEPEST = 0.1  # the lower limit as a fraction of the lowest mean loss: an epoch of easy tasks must not set the scale
STAGES = (("warm_up", "warm-up"), ("meta", "meta-training"))


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The loss and the validation accuracy over epochs.

    ``rows``: the lines of a run's ``curves.jsonl``. Each epoch's loss is a dot; the line is the running mean over the
    last twentieth of the stage. Raises ValueError if there are no rows, or none has a loss.
    """
    if not rows:
        raise ValueError("this run has not completed an epoch yet")
    with_loss = [row for row in rows if row["loss"] is not None]
    if not with_loss:
        raise ValueError("this run has no epoch with a loss: no gradient was finite")
    figure = new_figure(7.2, 5.0)
    above, below = figure.subplots(2, 1, sharex=True)
    lowest = []
    for (stage, name), colour in zip(STAGES, COLOURS, strict=False):
        own = [row for row in with_loss if row["stage"] == stage]
        if own:
            epochs, losses = [row["epoch"] for row in own], [row["loss"] for row in own]
            above.plot(epochs, losses, color=colour, linestyle="none", marker="o", markersize=2, alpha=0.35)
            means = running_mean(losses, max(1, len(losses) // 20))
            above.plot(epochs, means, color=colour, linewidth=1.6)
            lowest.append(min(means))
            middle = (epochs[0] + epochs[-1]) / 2
            above.annotate(name, (middle, 1.0), xycoords=("data", "axes fraction"), color=colour, ha="center", va="top")
    above.margins(y=0.15)
    if min(row["loss"] for row in with_loss) > 0:
        above.set_yscale("log")
        above.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
        above.yaxis.set_major_formatter("{x:g}")
        above.yaxis.set_minor_formatter(NullFormatter())
        above.set_ylim(bottom=max(above.get_ylim()[0], DEEPEST * min(lowest)))
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
    spare = max(0.0, LEAST_SPAN - (high - low)) / 2
    below.set_ylim(max(low - spare, 0.0), min(high + spare, HIGHEST))
    below.yaxis.get_major_locator().set_params(integer=True)
    below.set_ylabel("validation accuracy, %", color=INK)
    below.set_xlabel("epoch", color=INK)
    meta_epochs = [row["epoch"] for row in rows if row["stage"] == "meta"]
    for axes in (above, below):
        tidy(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if meta_epochs and meta_epochs[0] > rows[0]["epoch"]:
            axes.axvline(meta_epochs[0] - 0.5, color=FAINT, linewidth=0.8, linestyle=":")
    return figure


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """At each position, the mean of the last ``window`` values up to it, or of all if there are fewer."""
    parts = [values[max(0, end - window) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]
