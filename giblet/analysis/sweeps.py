"""Tables of many lesions: regions or groups of units by modality, dose and response, what reads what."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from giblet.analysis.lesion_effects import (
    lesion_effects,
    mean_over_trs,
    region_null,
    size_bin,
    unit_null,
)
from giblet.analysis.lesions import LesionScores
from giblet.analysis.regions import Regions


def region_sweep(
    scores: LesionScores,
    regions: Regions,
    n_permute: int = 199,
    random_state: int = 0,
    progress: bool = True,
    **lesion,
) -> pd.DataFrame:
    """The cost of lesioning each region, by modality, beside random regions of about the same size.

    The random regions are contiguous where the data set knows the coordinates of its voxels, see `random_lesions`.

    Parameters
    ----------
    **lesion
        `fill`, `strength`, `mode` and `seed`, as in `LesionScores.lesioned`.

    Returns
    -------
    DataFrame
        One row per region; columns (modality, 'effect' | 'z' | 'p'), see `LesionEffect`, and
        ('', 'n_voxels'). A region without voxels has no effect, z or p: NaN.
    """
    masks = [regions.voxels(name) for name in regions.names]
    lesioned = scores.of_regions(masks, **lesion)
    nulls, rows = {}, []
    for index, mask in enumerate(tqdm(masks, "null lesions", unit="region", disable=not progress)):
        n_voxels = int(mask.sum())
        size = size_bin(n_voxels, len(mask))
        if size not in nulls:
            nulls[size] = region_null(scores, size, n_permute, random_state, **lesion)
        own = {name: _known(values[[index]], n_voxels) for name, values in lesioned.items()}
        effects = lesion_effects(scores, own, nulls[size], lesion.get("mode", "without"))
        rows.append({("", "n_voxels"): n_voxels} | _row(effects))
    return _table(rows, pd.Index(regions.names, name="region"), scores)


def intact_table(scores: Mapping[str, LesionScores]) -> pd.DataFrame:
    """What each brain gives without a lesion, beside what the training mean would: look at it before any lesion.

    Parameters
    ----------
    scores : {brain: LesionScores}

    Returns
    -------
    DataFrame (n_modalities, n_brains + 1)
        R2 against the training mean of video and audio, cosine of text, share of equal codes; means over the TRs that
        have a score. The last column is `training mean`.
    """
    columns = {brain: {name: mean_over_trs(x.intact[name][0]) for name in x.names} for brain, x in scores.items()}
    first = next(iter(scores.values()))
    columns["training mean"] = first.of_training_mean()
    return _labelled(pd.DataFrame(columns).loc[list(first.names)], first)


def decoding_failures(table: pd.DataFrame) -> list[str]:
    """A sentence for each brain and modality of `intact_table` that is decoded no better than by the training mean."""
    mean = table["training mean"]
    return [
        f"{name} from the {brain} brain is decoded no better than by the training mean ({table.loc[name, brain]:.2f}, "
        f"the mean has {mean[name]:.2f}): read nothing into its lesions"
        for brain in table.columns.drop("training mean")
        for name in table.index
        if not table.loc[name, brain] > mean[name]
    ]


def unit_sweep(
    scores: LesionScores, group_size: int = 16, n_permute: int = 199, random_state: int = 0, **lesion
) -> pd.DataFrame:
    """The cost of silencing each group of neighbouring units, beside as many units at random; as `region_sweep`."""
    n_units = scores.bottleneck.shape[1]
    groups = [np.arange(start, start + group_size) for start in range(0, n_units - group_size + 1, group_size)]
    lesioned = scores.of_units(groups, **lesion)
    null = unit_null(scores, group_size, n_permute, random_state, **lesion)
    rows = [
        _row(lesion_effects(scores, {name: values[[index]] for name, values in lesioned.items()}, null))
        for index in range(len(groups))
    ]
    names = [f"{group[0]}-{group[-1]}" for group in groups]
    return _table(rows, pd.Index(names, name="units"), scores)


def dose_response(
    scores: LesionScores, region: np.ndarray, strengths: Sequence[float] = (0, 0.25, 0.5, 0.75, 1), **lesion
) -> pd.DataFrame:
    """Mean score of each modality by strength of the lesion of one region, (n_voxels,) bool.

    Returns
    -------
    DataFrame (n_strengths, n_modalities)
        Means over the TRs that have a score; NaN where none has, and of a region without voxels.
    """
    rows = []
    for strength in strengths:
        lesioned = scores.of_regions([region], strength=strength, **lesion)
        known = {name: _known(values[0], region.sum()) for name, values in lesioned.items()}
        rows.append({name: mean_over_trs(values) for name, values in known.items()})
    return _labelled(pd.DataFrame(rows, index=pd.Index(strengths, name="strength")), scores)


@torch.inference_mode()
def unit_region_map(scores: LesionScores, regions: Regions) -> pd.DataFrame:
    """How much of each bottleneck unit comes from each region: SD over time of what the region adds to the unit.

    Returns
    -------
    DataFrame (n_units, n_regions)
        Read along a row, where a unit listens; read down a column, which units a region feeds.
    """
    columns = {}
    for name in regions.names:
        voxels = np.flatnonzero(regions.voxels(name))
        columns[name] = scores.through_layer_6(scores.fmri[:, voxels], voxels).std(0).cpu().numpy()
    return _labelled(pd.DataFrame(columns).rename_axis("unit"), scores)


def top_trs(scores: LesionScores, region: np.ndarray, n: int = 6, apart: int = 4) -> np.ndarray:
    """Where in the film a region answers most: rows of the split, strongest first.

    Parameters
    ----------
    region : (n_voxels,) bool
        One without voxels answers nowhere.
    n : int
        Rows to return, if the split holds as many.
    apart : int
        Smallest distance of two rows, in TRs.

    Returns
    -------
    (n_rows,) int
    """
    if not region.any():
        return np.zeros(0, int)
    response = scores.fmri[:, np.flatnonzero(region)].mean(1).cpu().numpy()
    trs, chosen = scores.dataset.tr_index, []
    for row in np.argsort(-response):
        if all(abs(trs[row] - trs[other]) >= apart for other in chosen):
            chosen.append(int(row))
        if len(chosen) == n:
            break
    return np.array(chosen)


def _known(scores: np.ndarray, n_voxels: int) -> np.ndarray:
    """The scores after a lesion; NaN after one of no voxel, which leaves the brain intact."""
    return scores if n_voxels else np.full_like(scores, np.nan)


def _row(effects: dict) -> dict:
    return {
        (name, key): value
        for name, effect in effects.items()
        for key, value in (("effect", effect.effect), ("z", effect.z), ("p", effect.p))
    }


def _table(rows: list[dict], index: pd.Index, scores: LesionScores) -> pd.DataFrame:
    table = pd.DataFrame(rows, index=index)
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    if scores.dataset.simulated:
        table.columns.names = ["SIMULATED data", None]
    return table


def _labelled(table: pd.DataFrame, scores: LesionScores) -> pd.DataFrame:
    if scores.dataset.simulated:
        table.columns.name = "SIMULATED data"
    return table
