"""The model as a diagram.

    python -m giblet.plotting.architecture

prints the table of giblet/models/README.md and draws its diagram.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from giblet.models import MultimodalAutoencoder, summary
from giblet.models.summary import Layer, layer_table, markdown_table
from giblet.plotting.style import COLOURS, INK, WIDTH, styled

OUTLINES = {
    "video": COLOURS[0],
    "audio": COLOURS[1],
    "text": COLOURS[2],
    "brain": COLOURS[3],
    "shared": INK,
}
ENCODER, DECODER = 1, -2.3  # rows of the middle of the two halves
# layer -> (column, row, outline): the encoder runs to the right, the decoder back below it
PLACES = {
    "2A": (1, ENCODER + 1, "video"),
    "2B": (1, ENCODER, "audio"),
    "2C": (1, ENCODER - 1, "text"),
    "4": (2.2, ENCODER, "shared"),
    "5": (3.6, ENCODER, "brain"),
    "6": (5, ENCODER, "shared"),
    "8": (5, DECODER, "shared"),
    "9": (4, DECODER, "shared"),
    "10": (3, DECODER, "shared"),
    "11": (2, DECODER, "shared"),
    "12A": (1, DECODER + 1, "video"),
    "12B": (1, DECODER, "audio"),
    "12C": (1, DECODER - 1, "text"),
}
TRUNK = ("4", "5", "6", "8", "9", "10", "11")
BRANCHES = (("video", "2A", "12A"), ("audio", "2B", "12B"), ("text", "2C", "12C"))
BOX = (0.84, 0.5)  # width and height


@styled
def plot_architecture(model: MultimodalAutoencoder) -> Figure:
    """Draw every layer of a model with its output width and its parameters."""
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    ax = figure.subplots()
    rows = {row.number: row for row in layer_table(model)}
    for number, row in rows.items():
        _draw_layer(ax, row, *PLACES[number])
    for modality, first, last in BRANCHES:
        if first in rows:
            _draw_branch(ax, modality, rows[first], rows[last])
    for start, end in pairwise(TRUNK):
        _arrow(ax, PLACES[start][:2], PLACES[end][:2])
    measured = (3.6, ENCODER - 1)
    _draw_box(ax, *measured, "brain", f"measured\n{rows['5'].widths[-1]:,}", "decode_fmri")
    _arrow(ax, measured, PLACES["6"][:2])
    figure.suptitle(
        f"From the stimulus to every voxel, and back: {model.parameter_count():,} parameters\n"
        "(in a box: output width; above it: parameters)"
    )
    ax.set_xlim(-0.45, 5.45)
    ax.set_ylim(DECODER - 1.3, ENCODER + 1.55)
    ax.axis("off")
    return figure


def _draw_branch(ax: Axes, modality: str, first: Layer, last: Layer) -> None:
    """Layers 1 and 13 of a modality, with the arrows from one and to the other."""
    inner = PLACES[first.number][:2]
    outer = (0, inner[1])
    _draw_box(ax, *outer, modality, f"{modality}\n{first.widths[0]:,}", "Layer 1")
    _arrow(ax, outer, inner)
    _arrow(ax, inner, PLACES["4"][:2])
    inner = PLACES[last.number][:2]
    outer = (0, inner[1])
    _draw_box(ax, *outer, modality, f"{modality}\n{last.widths[-1]:,}", "Layer 13")
    _arrow(ax, PLACES["11"][:2], inner)
    _arrow(ax, inner, outer)


def _draw_layer(ax: Axes, layer: Layer, column: float, row: float, outline: str) -> None:
    n = layer.parameters
    size = f"{n / 1e6:,.1f} M" if n >= 1e5 else f"{n / 1e3:,.0f} k"
    name = layer.name.removeprefix("predicted ").removeprefix(f"{outline} ")
    label = f"{name}\n{layer.widths[-1]:,}"
    _draw_box(ax, column, row, outline, label, f"Layer {layer.number}: {size}")


def _draw_box(ax: Axes, column: float, row: float, outline: str, label: str, above: str) -> None:
    corner = (column - BOX[0] / 2, row - BOX[1] / 2)
    look = {"boxstyle": "round,pad=0.02", "facecolor": "none", "linewidth": 1.8}
    ax.add_patch(FancyBboxPatch(corner, *BOX, edgecolor=OUTLINES[outline], **look))
    ax.text(column, row, label, ha="center", va="center", size=9)
    ax.text(column, row + 0.31, above, ha="center", size=8)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From the side of one box to the side of another, or from below one to above another."""
    across = np.sign(end[0] - start[0])
    down = 0 if across else np.sign(end[1] - start[1])
    gap = np.array([across * 0.45, down * 0.27])
    look = {"arrowstyle": "->", "color": INK}
    ax.annotate("", xy=end - gap - (0, 0.25 * down), xytext=start + gap, arrowprops=look)


if __name__ == "__main__":
    with torch.device("meta"):
        full_size = MultimodalAutoencoder()
    print(markdown_table(full_size))
    page = Path(summary.__file__).with_name("architecture.png")
    plot_architecture(full_size).savefig(page)
