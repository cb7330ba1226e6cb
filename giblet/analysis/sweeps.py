"""Tables of many lesions: regions or groups of units by modality, dose and response, what reads what."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from giblet.analysis.lesion_effects import lesion_effects, region_null, size_bin, unit_null
from giblet.analysis.lesions import LesionScores
from giblet.analysis.regions import Regions


def region_sweep(
    scores: LesionScores,
    regions: Regions,
    coordinates: np.ndarray,
    n_permute: int = 199,
    random_state: int = 0,
    progress: bool = True,
    **lesion,
) -> pd.DataFrame:
    """The cost of lesioning each region, by modality, beside random contiguous regions of about the same size.

    Parameters
    ----------
    coordinates : (n_voxels, 3)
        Of the voxels in mm, see `voxel_coordinates`.
    **lesion
        `fill`, `strength`, `mode` and `seed`, as in `LesionScores.bottlenecks`.

    Returns
    -------
    DataFrame
        One row a region; columns (modality, 'effect' | 'z' | 'p') and ('', 'n_voxels').
    """
    masks = [regions.voxels(name) for name in regions.names]
    lesioned, nulls, rows = scores.of_regions(masks, **lesion), {}, []
    for index, mask in enumerate(tqdm(masks, "null lesions", unit="region", disable=not progress)):
        size = size_bin(int(mask.sum()), len(mask))
        if size not in nulls:
            nulls[size] = region_null(scores, coordinates, size, n_permute, random_state, **lesion)
        own = {name: values[index : index + 1] for name, values in lesioned.items()}
        rows.append(
            {("", "n_voxels"): int(mask.sum())}
            | _row(lesion_effects(scores, own, nulls[size], lesion.get("mode", "without")))
        )
    return _table(rows, pd.Index(regions.names, name="region"), scores)


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
    """Mean score of each modality by strength of the lesion of one region, (n_voxels,) bool."""
    rows = []
    for strength in strengths:
        lesioned = scores.of_regions([region], strength=strength, **lesion)
        rows.append({name: np.nanmean(values) for name, values in lesioned.items()})
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
    """Where in the film a region answers most: rows of the split, strongest first, at least `apart` TRs apart."""
    response = scores.fmri[:, np.flatnonzero(region)].mean(1).cpu().numpy()
    trs, chosen = scores.dataset.tr_index, []
    for row in np.argsort(-response):
        if all(abs(trs[row] - trs[other]) >= apart for other in chosen):
            chosen.append(int(row))
        if len(chosen) == n:
            break
    return np.array(chosen)


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
