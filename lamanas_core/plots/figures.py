"""The common style of all plots, and writing them to files."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

INK = "#1f2933"
FAINT = "#9aa5b1"
# Distinguishable for colour-blind readers (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches that needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Any) -> None:
    """Remove the top and right frame of ``axes`` and draw ticks unobtrusively."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8, length=3)


def write(figure: Figure, path: Path) -> Sequence[Path]:
    """Write ``path``.png and ``path``.svg and return both paths. Equal figures give equal SVG files. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(path.name + suffix) for suffix in (".png", ".svg")]
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=160)
    # The plots have few colours; with a palette, the file has a quarter of the size.
    Image.open(drawn).convert("RGB").quantize(256).save(written[0], optimize=True)
    with matplotlib.rc_context({"svg.hashsalt": "lamanas", "svg.fonttype": "none"}):
        figure.savefig(written[1], metadata={"Date": None})
    return written
