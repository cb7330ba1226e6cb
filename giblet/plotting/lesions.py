"""Figures of lesions."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def plot_sweep(sweep: pd.DataFrame, title: str, limit: float = 10.0) -> Axes:
    """z of `region_sweep` or `unit_sweep` as a picture: a row a modality, a column a lesion; p < .05 is marked."""
    names = [name for name in sweep.columns.levels[0] if name]
    names = [name for name in ("video", "audio", "text") if name in names]
    z, p = (np.stack([sweep[name][key] for name in names]) for key in ("z", "p"))
    figure = Figure(figsize=(9, 1.6 + 0.35 * len(names)), dpi=72, layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(z, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for row, column in np.argwhere(p < 0.05):
        ax.text(column, row, "*", ha="center", va="center")
    ax.set_yticks(range(len(names)), names)
    ax.set_xticks(range(len(sweep)), sweep.index, rotation=40, ha="right", fontsize="small")
    ax.set_title(f"{title} (* p < .05)", fontsize="medium")
    figure.colorbar(image, ax=ax, label="z")
    return ax


def plot_effects(tables: dict[str, pd.DataFrame], title: str, regions: list[str]) -> Figure:
    """Cost of lesions by modality, a panel a brain: {'measured': DataFrame of `region_sweep`, ...}."""
    figure = Figure(figsize=(9, 3), dpi=72, layout="constrained")
    for ax, (source, table) in zip(
        figure.subplots(1, len(tables), sharey=True, squeeze=False)[0], tables.items(), strict=True
    ):
        names = [name for name in ("video", "audio", "text") if name in table.columns.levels[0]]
        for index, name in enumerate(names):
            place = np.arange(len(regions)) + (index - 1) * 0.25
            effect, p = table[name]["effect"][regions], table[name]["p"][regions]
            ax.bar(place, effect, 0.25, label=name)
            for x, height, value in zip(place, effect, p, strict=True):
                ax.text(x, max(height, 0), "*" if value < 0.05 else "", ha="center")
        ax.axhline(0, color="0.3", lw=1)
        ax.set_xticks(range(len(regions)), regions, rotation=30, ha="right", fontsize="small")
        ax.set_title(f"{source} brain", fontsize="medium")
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("lost (R2; text: cosine)")
    figure.axes[-1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(f"{title} (* p < .05)", fontsize="medium")
    return figure


def plot_unit_region_map(listens: pd.DataFrame, title: str) -> Figure:
    """`unit_region_map` as a picture: a row a region, a column a unit."""
    figure = Figure(figsize=(9, 3), dpi=72, layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(listens.T, cmap="viridis", aspect="auto", vmin=0)
    ax.set_yticks(range(listens.shape[1]), listens.columns, fontsize="small")
    ax.set_xlabel("unit of the bottleneck")
    ax.set_title(title, fontsize="medium")
    figure.colorbar(image, ax=ax)
    return figure


def plot_dose(tables: dict[str, pd.DataFrame], title: str) -> Figure:
    """`dose_response` of several regions: a panel a region, a line a modality."""
    figure = Figure(figsize=(9, 2.6), dpi=72, layout="constrained")
    for ax, (region, table) in zip(
        figure.subplots(1, len(tables), sharey=True, squeeze=False)[0], tables.items(), strict=True
    ):
        for name in table:
            ax.plot(table.index, table[name], "o-", label=name)
        ax.axhline(0, color="0.7", lw=1)
        ax.set_title(f"without {region}", fontsize="medium")
        ax.set_xlabel("strength")
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("score")
    figure.axes[-1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title, fontsize="medium")
    return figure
