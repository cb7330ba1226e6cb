"""The model as a diagram.

    python -m giblet.plotting.architecture

prints the table of giblet/models/README.md and draws its diagram.
"""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from giblet.models import MultimodalAutoencoder, summary
from giblet.models.summary import Layer, layer_table, markdown_table
from giblet.plotting.style import styled

COLOURS = {
    "video": "#c6dbef",
    "audio": "#fdd0a2",
    "text": "#c7e9c0",
    "brain": "#fbb4b9",
    "shared": "#e0e0e0",
}
# layer -> (column, row, colour); columns run from stimulus to reconstruction
PLACES = {
    "2A": (1, 1, "video"),
    "2B": (1, 0, "audio"),
    "2C": (1, -1, "text"),
    "4": (2, 0, "shared"),
    "5": (3, 0, "brain"),
    "6": (4, 0, "shared"),
    "8": (5, 0, "shared"),
    "9": (6, 0, "shared"),
    "10": (7, 0, "shared"),
    "11": (8, 0, "shared"),
    "12A": (9, 1, "video"),
    "12B": (9, 0, "audio"),
    "12C": (9, -1, "text"),
}


@styled
def plot_architecture(model: MultimodalAutoencoder) -> Figure:
    """Draw every layer of a model with its output width and its parameters."""
    figure = Figure(figsize=(15, 5), layout="constrained")
    ax = figure.subplots()
    rows = {row.number: row for row in layer_table(model)}
    for number, row in rows.items():
        _draw_layer(ax, row, *PLACES[number])
    for row, modality, first, last in (
        (1, "video", "2A", "12A"),
        (0, "audio", "2B", "12B"),
        (-1, "text", "2C", "12C"),
    ):
        if first not in rows:
            continue
        _draw_box(
            ax, 0, row, COLOURS[modality], f"{modality}\n{rows[first].widths[0]:,}", "Layer 1"
        )
        _draw_box(
            ax,
            10,
            row,
            COLOURS[modality],
            f"{modality}_recon\n{rows[last].widths[-1]:,}",
            "Layer 13",
        )
        _arrow(ax, (0, row), (1, row))
        _arrow(ax, (1, row), (2, 0))
        _arrow(ax, (8, 0), (9, row))
        _arrow(ax, (9, row), (10, row))
    for column in range(2, 8):
        _arrow(ax, (column, 0), (column + 1, 0))
    _draw_box(
        ax, 3, -1, COLOURS["brain"], f"measured fMRI\n{rows['5'].widths[-1]:,}", "decode_fmri"
    )
    _arrow(ax, (3, -1), (4, 0))
    ax.text(2, 0.5, "Layer 3: concatenate", ha="center", size=8)
    ax.text(4, 0.5, "Layer 7: bottleneck", ha="center", size=8)
    total = model.parameter_count()
    ax.set_title(
        f"stimulus → every voxel → bottleneck → stimulus: {total:,} parameters (in a box: width, "
        "below it: parameters)"
    )
    ax.set_xlim(-0.5, 10.5)
    ax.set_ylim(-1.5, 1.5)
    ax.axis("off")
    return figure


def _draw_layer(ax: Axes, layer: Layer, column: float, row: float, colour: str) -> None:
    label = f"{layer.name}\n{layer.widths[-1]:,}"
    n = layer.parameters
    size = f"{n / 1e6:,.1f} M" if n >= 1e5 else f"{n / 1e3:,.0f} k"
    _draw_box(ax, column, row, COLOURS[colour], label, f"Layer {layer.number}", size)


def _draw_box(
    ax: Axes, column: float, row: float, colour: str, label: str, above: str, below: str = ""
) -> None:
    size = (0.76, 0.4)
    corner = (column - size[0] / 2, row - size[1] / 2)
    ax.add_patch(
        FancyBboxPatch(corner, *size, boxstyle="round,pad=0.02", facecolor=colour, edgecolor="0.3")
    )
    ax.text(column, row, label, ha="center", va="center", size=8)
    ax.text(column, row + 0.28, above, ha="center", size=8, color="0.35")
    ax.text(column, row - 0.34, below, ha="center", size=8, color="0.35")


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ends = {"xy": (end[0] - 0.42, end[1]), "xytext": (start[0] + 0.42, start[1])}
    ax.annotate("", arrowprops={"arrowstyle": "->", "color": "0.4"}, **ends)


if __name__ == "__main__":
    with torch.device("meta"):
        full_size = MultimodalAutoencoder()
    print(markdown_table(full_size))
    page = Path(summary.__file__).with_name("architecture.png")
    plot_architecture(full_size).savefig(page, dpi=90)
