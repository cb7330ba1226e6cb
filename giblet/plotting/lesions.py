"""Figures of lesions."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from giblet.data.features import STIMULI
from giblet.plotting.style import BESIDE, styled


@styled
def plot_sweep(sweep: pd.DataFrame, title: str, limit: float = 10.0) -> Figure:
    """z of `region_sweep` or `unit_sweep`: one row per modality, one column per lesion.

    p < .05 is marked.
    """
    names = [name for name in STIMULI if name in sweep.columns.levels[0]]
    z, p = (np.stack([sweep[name][key] for name in names]) for key in ("z", "p"))
    figure = Figure(figsize=(9, 1.6 + 0.35 * len(names)), dpi=72, layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(z, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for row, column in np.argwhere(p < 0.05):
        ax.text(column, row, "*", ha="center", va="center")
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
    figure = Figure(figsize=(9, 3), dpi=72, layout="constrained")
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
        ax.axhline(0, color="0.3", lw=1)
        ax.set_xticks(range(len(regions)), regions, rotation=30, ha="right", fontsize="small")
        ax.set_title(f"{source} brain")
    figure.axes[0].set_ylabel("lost (R2; text: cosine)")
    figure.axes[-1].legend(**BESIDE)
    figure.suptitle(f"{title} (* p < .05)")
    return figure


@styled
def plot_unit_region_map(listens: pd.DataFrame, title: str) -> Figure:
    """`unit_region_map` as a picture: one row per region, one column per unit."""
    figure = Figure(figsize=(9, 3), dpi=72, layout="constrained")
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
    figure = Figure(figsize=(9, 2.6), dpi=72, layout="constrained")
    axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for ax, (region, table) in zip(axes, tables.items(), strict=True):
        for name in table:
            ax.plot(table.index, table[name], "o-", label=name)
        ax.axhline(0, color="0.7", lw=1)
        ax.set_title(f"without {region}")
        ax.set_xlabel("strength")
    figure.axes[0].set_ylabel("score")
    figure.axes[-1].legend(**BESIDE)
    figure.suptitle(title)
    return figure
