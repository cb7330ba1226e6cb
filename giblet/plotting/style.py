"""The look of all figures: transparent, in colours that read on a white and on a dark page."""

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

WIDTH = 6.8  # inches of a figure, 680 pixels: notebooks shrink what is wider, and its text with it
INK = "#797979"  # of text and lines: contrast 4.3 with #ffffff and with #111111
COLOURS = (
    "#3b82c4",
    "#d9730d",
    "#2f9e44",
    "#d6453d",
    "#9467bd",
    "#1499ab",
    "#d65fa8",
    "#a0675a",
    "#8c8c1e",
)
TICKS_HZ = (100, 500, 2_000, 8_000)  # of every axis of sound
# Values around 0 are grey, as the brain and unlike the page. Both ends are light.
DIVERGING = LinearSegmentedColormap.from_list(
    "blue_grey_red", ["#8fdcff", "#2b6fd6", "#808080", "#d6402b", "#ffb030"]
)
LOOK = {
    "figure.dpi": 100,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.prop_cycle": cycler(color=COLOURS),
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "figure.titlesize": "medium",
    "legend.frameon": False,
    "legend.fontsize": "small",
}
BESIDE = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}  # a legend to the right of its axes
_LOCK = threading.RLock()  # matplotlib's settings are global, and explorers draw on threads

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that makes a figure, so that it has the look of all figures."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with _LOCK, rc_context(LOOK):
            made = draw(*args, **kwargs)
            if isinstance(made, Figure):
                _colour_ticks(made)
            return made

    return drawn


def _colour_ticks(figure: Figure) -> None:
    """Give ticks that matplotlib makes later, outside these settings, the colour of the others."""
    for ax in figure.axes:
        ax.tick_params(which="both", colors=INK)
