"""Figures of held-out prediction."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from giblet.data import MultimodalDataset
from giblet.data.features import STIMULI
from giblet.maps import voxel_image
from giblet.plotting.style import COLOURS, DIVERGING, INK, WIDTH, styled
from giblet.plotting.surface import draw_surface

N_ROWS = 30  # regions that a figure can hold


def highest(table: pd.DataFrame, column: str) -> tuple[pd.DataFrame, str]:
    """The rows of the highest values of a column, ascending, and a note on the others."""
    shown = table.sort_values(column).tail(N_ROWS)
    return shown, f"; the highest {N_ROWS} of {len(table)}" if len(shown) < len(table) else ""


@styled
def plot_network_table(table: pd.DataFrame, dataset: MultimodalDataset) -> Figure:
    """Held-out r of each region as a dot, on the 95 % range of its null as a bar.

    Of many regions the highest are shown.

    What drives each planted network of simulated data is written next to its name.

    Parameters
    ----------
    table : DataFrame of `network_table`
    """
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    ax = figure.subplots()
    _draw_network_table(ax, table, dataset.planted)
    ax.set_title(f"{dataset.label}held-out r by network")
    return figure


def _draw_network_table(ax: Axes, table: pd.DataFrame, planted: dict[str, list[str]]) -> None:
    table, others = highest(table, "r")
    rows = np.arange(len(table))
    low = table["null_mean"] - 1.96 * table["null_sd"]
    width = 3.92 * table["null_sd"]
    ax.barh(rows, width, left=low, color=INK, alpha=0.35, label="null, mean ± 1.96 SD")
    driven = np.array([name in planted for name in table.index])
    label = "held-out r, silent" if planted else "held-out r"
    ax.plot(table["r"][~driven], rows[~driven], "o", color=INK, label=label)
    if driven.any():
        ax.plot(
            table["r"][driven], rows[driven], "o", color=COLOURS[3], label="held-out r, planted"
        )
    labels = [_label(name, planted.get(name, ())) for name in table.index]
    ax.use_sticky_edges = False
    ax.autoscale_view(scaley=False)
    ax.set_yticks(rows, labels, fontsize="small")
    ax.set_xlabel(f"r over held-out time, mean of the region's voxels{others}")
    ax.legend(loc="lower right")


def _label(name: str, causes: Sequence[str]) -> str:
    """A region, with what was made to drive it."""
    told = "all three" if len(causes) == len(STIMULI) else " + ".join(causes)
    return f"{name} ({told})" if causes else name


@styled
def plot_scores(scores: Mapping[str, pd.Series], title: str) -> Figure:
    """Several scores of the same regions, one row of dots per region, in the order of the first."""
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    ax = figure.subplots()
    table, others = highest(pd.DataFrame(scores), next(iter(scores)))
    rows = np.arange(len(table))
    ax.hlines(rows, table.min(axis=1), table.max(axis=1), color=INK, alpha=0.5)
    for index, name in enumerate(scores):
        ax.plot(table[name], rows, "o", color=COLOURS[index], label=name)
    ax.axvline(0, color=INK, lw=0.8, zorder=0)
    ax.set_yticks(rows, table.index, fontsize="small")
    ax.set_xlabel(f"mean of the region's voxels{others}")
    ax.set_title(title)
    ax.legend()
    return figure


@styled
def plot_ablation(table: pd.DataFrame, title: str = "held-out r by network") -> Figure:
    """`ablation_table` as a picture: one row per region, one column per modality taken away."""
    table, others = highest(table, "nothing")
    table = table[::-1]
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(table, cmap=DIVERGING, vmin=-0.6, vmax=0.6, aspect="auto")
    for row, column in np.ndindex(table.shape):
        value = f"{table.iloc[row, column]:.2f}"
        ax.text(column, row, value, ha="center", va="center", color="black")
    ax.set_xticks(range(table.shape[1]), table.columns)
    ax.set_yticks(range(len(table)), table.index, fontsize="small")
    ax.set_xlabel(f"taken from the model's input{others}")
    ax.set_title(title)
    figure.colorbar(image, ax=ax, label="r")
    return figure


@styled
def plot_prediction(
    r: np.ndarray, table: pd.DataFrame, dataset: MultimodalDataset, n_stills: int = 6
) -> Figure:
    """Stills of the held-out movie, the map of held-out r, and r by region on its null.

    Stills need a movie and the map a `mask_img`; what the data set lacks is left out.

    Parameters
    ----------
    r : (n_voxels,)
        Correlation over held-out time.
    table : DataFrame of `network_table`
    dataset : MultimodalDataset
        The held-out split.
    """
    figure = Figure(figsize=(WIDTH, 6.6))
    label = dataset.label
    if "video" in dataset.present and dataset.video_processor is not None:
        _draw_stills(figure, dataset, n_stills)
    if dataset.mask_img is not None:
        title = f"{label}held-out r above .2 on the cortical surface, mean of the subjects"
        figure.text(0.5, 0.77, title, ha="center")
        place = {"bottom": 0.51, "height": 0.24}
        draw_surface(voxel_image(r, dataset.mask_img), figure, **place, threshold=0.2, vmax=0.6)
    ax = figure.add_axes((0.4, 0.08, 0.58, 0.38))
    _draw_network_table(ax, table, dataset.planted)
    ax.set_title(f"{label}held-out r by network", x=0.2)
    return figure


def _draw_stills(figure: Figure, dataset: MultimodalDataset, n_stills: int) -> None:
    """The first frame of some TRs, across the top, in grey or colour as the model gets it."""
    title = f"{dataset.label}stills of the held-out film, as the model sees them"
    figure.text(0.5, 0.97, title, ha="center")
    video = dataset.video_processor
    shown = np.linspace(0, dataset.n_trs - 1, n_stills).astype(int)
    for position, index in enumerate(shown):
        place = (0.02 + 0.96 * position / n_stills, 0.82, 0.94 / n_stills, 0.12)
        ax = figure.add_axes(place)
        own = dataset.without_context("video", dataset[[int(index)]]["video"])
        frames = own.numpy().reshape(-1, *video.frame_shape)
        ax.imshow(frames[0], cmap="gray", vmin=0, vmax=1)
        ax.set_title(f"TR {dataset.tr_index[index]}", fontsize="small", pad=3)
        ax.axis("off")
