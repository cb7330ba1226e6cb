"""Figures of held-out prediction."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from giblet.data import MultimodalDataset
from giblet.plotting.surface import plot_surface, voxel_image

N_ROWS = 30  # regions that a figure can hold


def highest(table: pd.DataFrame, column: str) -> tuple[pd.DataFrame, str]:
    """The rows of the highest values of a column, from the lowest on, and what an axis tells of the others."""
    shown = table.sort_values(column).tail(N_ROWS)
    return shown, f"; the highest {N_ROWS} of {len(table)}" if len(shown) < len(table) else ""


def plot_network_table(table: pd.DataFrame, planted: dict | None = None, ax: Axes | None = None) -> Axes:
    """Held-out r of each network as a dot, on the 95 % range of its null as a bar; of many the highest.

    Parameters
    ----------
    table : DataFrame of `network_table`
    planted : dict, optional
        What drives each planted network of simulated data, written beside its name.
    """
    ax = ax or Figure(figsize=(6, 4), layout="constrained").subplots()
    table, others = highest(table, "r")
    rows, planted = np.arange(len(table)), planted or {}
    low = table["null_mean"] - 1.96 * table["null_sd"]
    ax.barh(rows, 3.92 * table["null_sd"], left=low, color="0.8", label="null, mean ± 1.96 SD")
    driven = np.array([name in planted for name in table.index])
    ax.plot(table["r"][~driven], rows[~driven], "o", color="0.35", label="held-out r" + (", silent" if planted else ""))
    if driven.any():
        ax.plot(table["r"][driven], rows[driven], "o", color="tab:red", label="held-out r, planted")
    labels = [f"{name} ({' + '.join(planted[name])})" if name in planted else name for name in table.index]
    ax.use_sticky_edges = False
    ax.autoscale_view(scaley=False)
    ax.set_yticks(rows, labels, fontsize="small")
    ax.set_xlabel(f"r over held-out time, mean of the region's voxels{others}")
    ax.legend(loc="lower right", fontsize="small", frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_scores(scores: Mapping[str, pd.Series], title: str, ax: Axes | None = None) -> Axes:
    """Several scores of the same regions, a dot each on a row a region, in the order of the first score."""
    ax = ax or Figure(figsize=(6.5, 4), layout="constrained").subplots()
    table, others = highest(pd.DataFrame(scores), next(iter(scores)))
    rows = np.arange(len(table))
    ax.hlines(rows, table.min(axis=1), table.max(axis=1), color="0.85")
    for index, name in enumerate(scores):
        ax.plot(table[name], rows, "o", color=f"C{index}", label=name)
    ax.axvline(0, color="0.7", lw=1, zorder=0)
    ax.set_yticks(rows, table.index, fontsize="small")
    ax.set_xlabel(f"mean of the region's voxels{others}")
    ax.set_title(title, fontsize="medium")
    ax.legend(fontsize="small", frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_knock_out(table: pd.DataFrame, simulated: bool) -> Figure:
    """`knock_out_table` as a picture: one row a network, one column for each modality taken away."""
    table, others = highest(table, "nothing")
    table = table[::-1]
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(table, cmap="RdBu_r", vmin=-0.6, vmax=0.6, aspect="auto")
    for row, column in np.ndindex(table.shape):
        value = table.iloc[row, column]
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if abs(value) > 0.4 else "black")
    ax.set_xticks(range(table.shape[1]), table.columns)
    ax.set_yticks(range(len(table)), table.index, fontsize="small")
    ax.set_xlabel(f"taken from the model's input{others}")
    ax.set_title(("SIMULATED data: " if simulated else "") + "held-out r by network", fontsize="medium")
    figure.colorbar(image, ax=ax, label="r")
    return figure


def plot_prediction(
    r: np.ndarray, table: pd.DataFrame, dataset: MultimodalDataset, planted: dict | None = None, n_stills: int = 6
) -> Figure:
    """Stills of the held-out film where it has pictures, the map of held-out r, and r by network on its null.

    Parameters
    ----------
    r : (n_voxels,)
        Correlation over held-out time.
    dataset : MultimodalDataset
        The held-out split.
    """
    figure = Figure(figsize=(10, 8))
    simulated = "SIMULATED data: " if dataset.simulated else ""
    if "video" in dataset.present and dataset.video_processor is not None:
        _draw_stills(figure, dataset, n_stills)
    figure.text(
        0.5,
        0.775,
        f"{simulated}held-out r above .2 on the cortical surface, mean of the subjects",
        ha="center",
        size=12,
    )
    plot_surface(voxel_image(r, dataset.mask_img), figure, bottom=0.5, height=0.26, threshold=0.2, vmax=0.6)
    networks = plot_network_table(table, planted, figure.add_axes((0.36, 0.07, 0.61, 0.38)))
    networks.set_title(f"{simulated}held-out r by network", x=0.14)
    return figure


def _draw_stills(figure: Figure, dataset: MultimodalDataset, n_stills: int) -> None:
    """The first frame of some TRs, across the top, in grey or colour as the model gets it."""
    simulated = "SIMULATED data: " if dataset.simulated else ""
    title = f"{simulated}stills of the held-out film, as the model sees them"
    figure.text(0.5, 0.97, title, ha="center", size=12)
    video = dataset.video_processor
    shown = np.linspace(0, dataset.n_trs - 1, n_stills).astype(int)
    for position, index in enumerate(shown):
        place = (0.02 + 0.96 * position / n_stills, 0.82, 0.94 / n_stills, 0.12)
        ax = figure.add_axes(place)
        own = dataset.own("video", dataset[[int(index)]]["video"])
        frames = own.numpy().reshape(-1, *video.frame_shape)
        ax.imshow(frames[0], cmap="gray", vmin=0, vmax=1)
        ax.set_title(f"TR {dataset.tr_index[index]}", fontsize="small", pad=3)
        ax.axis("off")
