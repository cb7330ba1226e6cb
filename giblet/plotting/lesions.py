"""Figures of lesions."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from giblet.data.features import STIMULI
from giblet.plotting.style import BESIDE, DIVERGING, INK, TICKS_HZ, WIDTH, styled


@styled
def plot_sweep(sweep: pd.DataFrame, title: str, limit: float = 10.0) -> Figure:
    """z of `region_sweep` or `unit_sweep`: one row per modality, one column per lesion.

    p < .05 is marked.
    """
    names = [name for name in STIMULI if name in sweep.columns.levels[0]]
    z, p = (np.stack([sweep[name][key] for name in names]) for key in ("z", "p"))
    figure = Figure(figsize=(WIDTH, 1.6 + 0.35 * len(names)), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(z, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
    for row, column in np.argwhere(p < 0.05):
        ax.text(column, row, "*", ha="center", va="center", color="black")
    ax.set_yticks(range(len(names)), names)
    ax.set_xticks(range(len(sweep)), sweep.index, rotation=40, ha="right", fontsize="small")
    ax.set_title(f"{title} (* p < .05)")
    figure.colorbar(image, ax=ax, label="z")
    return figure


@styled
def plot_effects(tables: dict[str, pd.DataFrame], title: str, regions: list[str]) -> Figure:
    """Cost of lesions by modality, one panel per brain.

    Parameters
    ----------
    tables : {brain: DataFrame of `region_sweep`}
    """
    figure = Figure(figsize=(WIDTH, 3), layout="constrained")
    axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for ax, (source, table) in zip(axes, tables.items(), strict=True):
        names = [name for name in STIMULI if name in table.columns.levels[0]]
        for index, name in enumerate(names):
            place = np.arange(len(regions)) + (index - 1) * 0.25
            effect = table[name]["effect"][regions]
            p = table[name]["p"][regions]
            ax.bar(place, effect, 0.25, label=name)
            for x, height, value in zip(place, effect, p, strict=True):
                ax.text(x, max(height, 0), "*" if value < 0.05 else "", ha="center")
        ax.axhline(0, color=INK, lw=0.8)
        ax.set_xticks(range(len(regions)), regions, rotation=30, ha="right", fontsize="small")
        ax.set_title(f"{source} brain")
    figure.axes[0].set_ylabel("lost (R2; text: cosine)")
    figure.axes[-1].legend(**BESIDE)
    figure.suptitle(f"{title} (* p < .05)")
    return figure


@styled
def plot_unit_region_map(listens: pd.DataFrame, title: str) -> Figure:
    """`unit_region_map` as a picture: one row per region, one column per unit."""
    figure = Figure(figsize=(WIDTH, 3), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(listens.T, cmap="viridis", aspect="auto", vmin=0)
    ax.set_yticks(range(listens.shape[1]), listens.columns, fontsize="small")
    ax.set_xlabel("unit of the bottleneck")
    ax.set_title(title)
    figure.colorbar(image, ax=ax)
    return figure


@styled
def plot_dose_response(tables: dict[str, pd.DataFrame], title: str) -> Figure:
    """`dose_response` of several regions: one panel per region, one line per modality."""
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for ax, (region, table) in zip(axes, tables.items(), strict=True):
        for name in table:
            ax.plot(table.index, table[name], "o-", label=name)
        ax.axhline(0, color=INK, lw=0.8)
        ax.set_title(f"without {region}")
        ax.set_xlabel("strength")
    figure.axes[0].set_ylabel("score")
    figure.axes[-1].legend(**BESIDE)
    figure.suptitle(title)
    return figure


@styled
def plot_halves(
    table: pd.DataFrame,
    title: str = "",
    low: pd.DataFrame | None = None,
    high: pd.DataFrame | None = None,
) -> Figure:
    """R2 lost in each part of the picture, one group of bars per lesion.

    Parameters
    ----------
    table : DataFrame
        One row per lesion and one column per part of the picture.
    low, high : DataFrame, optional
        Ends of the confidence intervals, with the rows and columns of `table`.
    """
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    ax = figure.subplots()
    width = 0.8 / table.shape[1]
    for index, part in enumerate(table):
        place = np.arange(len(table)) + (index - (table.shape[1] - 1) / 2) * width
        lost = table[part].to_numpy()
        ax.bar(place, lost, 0.9 * width, label=part)
        if low is not None and high is not None:
            ends = [lost - low.loc[table.index, part], high.loc[table.index, part] - lost]
            ax.errorbar(place, lost, ends, fmt="none", ecolor=INK, capsize=2)
    ax.axhline(0, color=INK, lw=0.8)
    ax.set_xticks(range(len(table)), table.index)
    ax.set_ylabel("R2 lost")
    ax.set_title(title)
    ax.legend(title="part of the picture", title_fontsize="small", **BESIDE)
    return figure


@styled
def plot_frequency_loss(
    curves: Mapping[str, np.ndarray], frequencies_hz: np.ndarray, title: str = ""
) -> Figure:
    """Growth of the error of sound by frequency, one line per lesion.

    Parameters
    ----------
    curves : {lesion: (n_bands,)}
    frequencies_hz : (n_bands,)
        Centres of the bands, see `mel_frequencies`.
    """
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    ax = figure.subplots()
    for name, growth in curves.items():
        ax.plot(frequencies_hz, growth, label=name)
    ax.axhline(0, color=INK, lw=0.8)
    ax.set_xscale("log")
    ax.set_xticks(TICKS_HZ, [f"{hertz / 1000:g}" for hertz in TICKS_HZ])
    ax.minorticks_off()
    ax.set_xlabel("frequency (kHz)")
    ax.set_ylabel("growth of the error")
    ax.set_title(title)
    ax.legend(**BESIDE)
    return figure
