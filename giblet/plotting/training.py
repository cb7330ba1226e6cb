"""Loss curves."""

import io
import time

import ipywidgets as widgets
from matplotlib.figure import Figure

from giblet.plotting.style import COLOURS, INK, WIDTH, styled


@styled
def plot_history(history: list[dict], title: str = "") -> Figure:
    """Training and validation loss, and validation r, by epoch.

    Without validation TRs, training loss alone. Validation r is the mean over the voxels that
    subjects share.
    """
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    loss, brain, r = figure.subplots(1, 3)
    epochs = [entry["epoch"] for entry in history]
    validated = bool(history[0]["val"])
    for split in ("train", "val") if validated else ("train",):
        loss.plot(epochs, [entry[split]["total"] for entry in history], label=split)
        brain.plot(epochs, [entry[split]["fmri"] for entry in history], label=split)
    if validated:
        r.plot(epochs, [entry["val"]["r"] for entry in history], color=COLOURS[1])
    r.axhline(0, color=INK, lw=0.8)
    titles = ("total loss", "fMRI loss (SD²)", "validation r (shared)")
    for ax, name in zip((loss, brain, r), titles, strict=True):
        ax.set_title(name)
        ax.set_xlabel("epoch")
    loss.legend()
    figure.suptitle(title.removesuffix(": "))
    return figure


class LossPlot:
    """A live view of the history: display `widget`, and give the object as `on_epoch`.

    Parameters
    ----------
    epochs : int
        Epochs of the run, at most.
    title : str
        Such as `dataset.label`.
    """

    def __init__(self, epochs: int, title: str = ""):
        self.epochs = epochs
        self.title = title
        # Margins on an image as wide as the page make it scroll.
        self.widget = widgets.Image(format="png", layout={"margin": "0"})
        self._first: tuple[int, float] | None = None  # epochs done when first called, and when

    def __call__(self, history: list[dict]) -> None:
        png = io.BytesIO()
        title = f"{self.title}{self._progress(len(history))}"
        plot_history(history, title).savefig(png, format="png")
        self.widget.value = png.getvalue()

    def _progress(self, n_done: int) -> str:
        """Epochs done, and how long the others will take if all are trained."""
        now = time.monotonic()
        if self._first is None:
            self._first = (n_done, now)
        before, started = self._first
        said = f"epoch {n_done} of {self.epochs}"
        if before < n_done < self.epochs:
            left = (self.epochs - n_done) * (now - started) / (n_done - before)
            said += f", at most {left:.0f} s left"
        return said
