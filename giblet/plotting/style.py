"""The look of all figures."""

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from matplotlib import rc_context

LOOK = {
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
            return draw(*args, **kwargs)

    return drawn
