"""Maps of the picture: what a voxel sees."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from giblet.plotting.style import DIVERGING, WIDTH, styled

MOST_PANELS = 4  # next to each other


@styled
def plot_fields(
    maps: Mapping[str, np.ndarray],
    title: str = "",
    field: tuple[float, float, float] | None = None,
) -> Figure:
    """Maps of the picture next to each other, each on its own colour scale around 0.

    Scales differ because units do: a derivative, a weight and a covariance can be compared in
    their shape alone.

    Parameters
    ----------
    maps : {name: (height, width)}
    field : (x, y, sd) in pixels, optional
        Centre of a receptive field, marked by a cross, and its SD, the radius of a circle.
    """
    n_columns = min(len(maps), MOST_PANELS)
    n_lines = -(-len(maps) // n_columns)
    height, width = np.shape(next(iter(maps.values())))
    panel = WIDTH / n_columns * height / width
    figure = Figure(figsize=(WIDTH, 0.4 + n_lines * (panel + 0.25)), layout="constrained")
    axes = figure.subplots(n_lines, n_columns, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, (name, values) in zip(axes, maps.items(), strict=False):
        limit = np.nanmax(np.abs(values))
        ax.imshow(values, cmap=DIVERGING, vmin=-limit, vmax=limit)
        ax.set_title(name, fontsize="small")
        if field is not None:
            _mark(ax, *field)
    figure.suptitle(title)
    return figure


def _mark(ax: Axes, x: float, y: float, sd: float) -> None:
    ax.plot(x, y, "+", color="black")
    ax.add_patch(Circle((x, y), sd, facecolor="none", edgecolor="black"))
