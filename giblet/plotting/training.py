"""Loss curves."""

import io

import ipywidgets as widgets
from matplotlib.figure import Figure


def plot_history(history: list[dict], simulated: bool = False) -> Figure:
    """Training and validation loss, and validation r, by epoch; without validation TRs training loss alone."""
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    loss, brain, r = figure.subplots(1, 3)
    epochs = [entry["epoch"] for entry in history]
    validated = bool(history[0]["val"])
    for split in ("train", "val") if validated else ("train",):
        loss.plot(epochs, [entry[split]["total"] for entry in history], label=split)
        brain.plot(epochs, [entry[split]["fmri"] for entry in history], label=split)
    if validated:
        r.plot(epochs, [entry["val"]["r"] for entry in history], color="tab:orange")
    r.axhline(0, color="0.7", lw=1)
    titles = ("total loss", "fMRI loss (SD²)", "validation r, voxels that subjects share")
    for ax, title in zip((loss, brain, r), titles, strict=True):
        ax.set_title(title, fontsize="medium")
        ax.set_xlabel("epoch")
        ax.spines[["top", "right"]].set_visible(False)
    loss.legend(frameon=False)
    if simulated:
        figure.suptitle("SIMULATED data", fontsize="medium")
    return figure


class LossPlot:
    """A live view of the history: display `widget`, and give the object to `Trainer.fit` as `on_epoch`."""

    def __init__(self, simulated: bool = False):
        self.simulated = simulated
        self.widget = widgets.Image(format="png")

    def __call__(self, history: list[dict]) -> None:
        png = io.BytesIO()
        plot_history(history, self.simulated).savefig(png, format="png", dpi=80)
        self.widget.value = png.getvalue()
