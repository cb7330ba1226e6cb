"""The explorer's controls, and its widget in the browser."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import anywidget
import traitlets


@dataclass(frozen=True)
class Controls:
    """What the explorer is set to.

    Parameters
    ----------
    tr : int
        Row among the held-out TRs.
    source : 'measured' or 'predicted'
        The brain that is lesioned and decoded.
    preset : str
        Name of a preset, whose voxels are lesioned; '' for none.
    regions : sequence of str
        Regions that are lesioned as well.
    units : (first, last)
        Lesioned units of the bottleneck, `last` excluded.
    mode, fill, strength
        As in `Lesion`.
    """

    tr: int = 0
    source: str = "measured"
    preset: str = ""
    regions: Sequence[str] = ()
    units: tuple[int, int] = (0, 0)
    mode: str = "without"
    fill: str = "zero"
    strength: float = 1.0

    @property
    def state(self) -> dict:
        """The same as the app holds it."""
        first, last = self.units
        numbers = {"tr": int(self.tr), "strength": float(self.strength)}
        lists = {"regions": list(self.regions), "units": [int(first), int(last)]}
        return asdict(self) | numbers | lists


class App(anywidget.AnyWidget):
    """The explorer in the browser: `state` holds the controls, the rest is what it shows."""

    _esm = Path(__file__).with_name("app.js")
    _css = Path(__file__).with_name("app.css")
    facts = traitlets.Dict().tag(sync=True)  # what does not change
    state = traitlets.Dict().tag(sync=True)
    summary = traitlets.Unicode().tag(sync=True)
    movie = traitlets.Bytes().tag(sync=True)
    intact = traitlets.Bytes().tag(sync=True)
    lesioned = traitlets.Bytes().tag(sync=True)
    difference = traitlets.Bytes().tag(sync=True)
    hurt = traitlets.Bytes().tag(sync=True)  # a bit for each pixel of the brain
    # Each says in `of` of which controls it is.
    clip_before = traitlets.Dict().tag(sync=True)
    clip_after = traitlets.Dict().tag(sync=True)
    sentences = traitlets.Dict().tag(sync=True)
    effects = traitlets.Dict().tag(sync=True)
