"""Scores of regions beside chance, ceiling and baseline."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from giblet.analysis.bootstrap import (
    bootstrap_correlations,
    confidence_interval,
    paired_p_values,
    usual_block_trs,
)
from giblet.analysis.ceiling import over_ceiling, prediction_ceiling
from giblet.analysis.identification import Identification, identify
from giblet.analysis.prediction import knock_out_maps, voxelwise_correlation
from giblet.analysis.reconstruction import reconstruct, shifted_rows, similarity
from giblet.analysis.regions import Regions
from giblet.analysis.statistics import (
    ROUNDING,
    p_values,
    window_null,
    z_scores,
)
from giblet.data import MultimodalDataset
from giblet.data.features import STIMULI
from giblet.data.provenance import check_held_out
from giblet.models import MultimodalAutoencoder

N_PERMUTE = 2000  # null draws


def network_table(
    fmri_pred: np.ndarray,
    dataset: MultimodalDataset,
    regions: Regions,
    n_permute: int = N_PERMUTE,
    random_state: int = 0,
    split: str = "test",
    ridge_pred: np.ndarray | None = None,
) -> pd.DataFrame:
    """Held-out r of each region beside its null.

    Parameters
    ----------
    fmri_pred : (n_trs, n_voxels)
        Prediction for all TRs of `dataset`, which has `split='all'` and `average=True`: null windows are taken
        from all of each run, at least the gap between splits away from the held-out block.
    split : 'test' or 'val'
    ridge_pred : (n_held_out, n_voxels), optional
        What a ridge regression predicts for the held-out TRs, see `ridge_predictions`.

    Returns
    -------
    DataFrame
        One row per region: `n_voxels`, `r` (mean over voxels), `null_mean`, `null_sd` (of that mean
        over the draws), `z` = (r - null_mean) / null_sd, see `z_scores`, and `p`, see `p_values`; with
        `ridge_pred` also `ridge r`. A region without voxels, or whose voxels do not vary, has no
        score: NaN.

    Raises
    ------
    ValueError
        If `dataset` has no TR of the split, a run is too short, see `window_null`, or the split is that of training.
    """
    if split not in ("val", "test"):
        raise ValueError(f"split is {split!r}, expected 'test' or 'val': a score on training TRs says nothing.")
    held_out = dataset.split_labels[dataset.tr_index] == split
    scores = (n_permute, random_state, regions.mean)
    r, null = window_null(fmri_pred, dataset.fmri(), dataset.run, held_out, dataset.gap, *scores)
    table = pd.DataFrame(
        {
            "n_voxels": _sizes(regions),
            "r": r,
            "null_mean": null.mean(0),
            "null_sd": null.std(0),
            "z": z_scores(r, null, rounding=ROUNDING),
            "p": p_values(r, null, rounding=ROUNDING),
        },
        index=pd.Index(regions.names, name="network"),
    )
    if ridge_pred is not None:
        ridge_r = voxelwise_correlation(ridge_pred, dataset.fmri()[held_out], dataset.run[held_out])
        table["ridge r"] = regions.mean(ridge_r)
    return _labelled(table, dataset)


def region_table(
    fmri_pred: np.ndarray,
    ridge_pred: np.ndarray,
    dataset: MultimodalDataset,
    regions: Regions,
    maps: Mapping[str, np.ndarray],
    n_boot: int = 1000,
    random_state: int = 0,
    block_trs: int | None = None,
) -> pd.DataFrame:
    """What is predicted of each region, of what is predictable, against what a ridge predicts.

    Parameters
    ----------
    fmri_pred, ridge_pred : (n_trs, n_voxels)
        Predictions of the held-out TRs of `dataset`, which has `average=True`.
    maps : mapping of name to (n_voxels,)
        `reliability` of the mean response (`split_half_reliability`); `subject_r`, the mean over subjects of r, and
        `isc`, of their inter-subject correlation; and `q`, the false discovery rate at which a voxel is predicted.

    Returns
    -------
    DataFrame
        One row per region, means over its voxels: `n_voxels`; `r`, `ceiling` (the root of the mean
        reliability) and `r/ceiling` for the mean response; `subject r`, `ISC` and `subject r/ISC`
        for single subjects; `significant`, the share with q < .05 of the voxels that have a q;
        `ridge r`; `r - ridge`, its 95 % interval `low` to `high` and two-sided `p` over film that
        is resampled in blocks, see `usual_block_trs` and `paired_p_values`. A ratio to a ceiling
        below .1 is NaN: nothing there can be predicted. A region without voxels is all NaN.

    Raises
    ------
    ValueError
        If the TRs hold fewer than 3 blocks, or a run is shorter than one.
    """
    check_held_out(dataset)
    fmri, run = dataset.fmri(), dataset.run
    block_trs = block_trs or usual_block_trs(run)
    r, ridge_r = (regions.mean(voxelwise_correlation(x, fmri, run)) for x in (fmri_pred, ridge_pred))
    draws = bootstrap_correlations((fmri_pred, ridge_pred), fmri, run, block_trs, n_boot, random_state, regions.mean)
    difference, n_blocks = draws[0] - draws[1], len(run) / block_trs
    subject_r, isc = (regions.mean(maps[name]) for name in ("subject_r", "isc"))
    ceiling = prediction_ceiling(regions.mean(maps["reliability"]))  # averaged first: roots of noise are above 0
    low, high = confidence_interval(r - ridge_r, difference, n_blocks)
    significant = np.where(np.isfinite(maps["q"]), maps["q"] < 0.05, np.nan)
    columns = {
        "n_voxels": _sizes(regions),
        "r": r,
        "ceiling": ceiling,
        "r/ceiling": over_ceiling(r, ceiling),
        "subject r": subject_r,
        "ISC": isc,
        "subject r/ISC": over_ceiling(subject_r, isc),
        "significant": regions.mean(significant),
        "ridge r": ridge_r,
        "r - ridge": r - ridge_r,
        "low": low,
        "high": high,
        "p": paired_p_values(r - ridge_r, difference, n_blocks),
    }
    return _labelled(pd.DataFrame(columns, index=pd.Index(regions.names, name="region")), dataset)


def knock_out_table(model: MultimodalAutoencoder, dataset: MultimodalDataset, regions: Regions) -> pd.DataFrame:
    """What each region listens to: its r over the data set's TRs with one modality after the other taken away.

    Returns
    -------
    DataFrame
        One row per region; the columns `nothing` and those of the modalities name what was taken away,
        see `predict_fmri`.
    """
    columns = {name: regions.mean(r) for name, r in knock_out_maps(model, dataset).items()}
    table = pd.DataFrame(columns, index=pd.Index(regions.names, name="network"))
    return _labelled(table, dataset)


def identify_source(
    source: str,
    model: MultimodalAutoencoder,
    whole: MultimodalDataset,
    test: MultimodalDataset,
    n_permute: int = N_PERMUTE,
    random_state: int = 0,
    subject: str | None = None,
    voxels: np.ndarray | None = None,
) -> dict[str, Identification]:
    """Identify the held-out TRs from what a source gave, by each modality: {'video': Identification, ...}.

    Parameters
    ----------
    source, subject, voxels : as in `reconstruct`
    whole, test : MultimodalDataset with `average=True`
        Whole runs, from whose other windows the null comes, and the held-out split.
    """
    check_held_out(test)
    held_out = np.isin(whole.tr_index, test.tr_index)
    batches = reconstruct("measured" if source == "shifted" else source, model, whole, subject, voxels)
    alike = similarity(batches, test, test.present)
    if source == "shifted":
        for rows in alike.values():
            rows[held_out] = rows[held_out][shifted_rows(test.run)]
    settings = (whole.run, held_out, whole.tr_index, whole.gap, n_permute, random_state)
    return {name: identify(rows, *settings) for name, rows in alike.items()}


def reconstruction_table(
    scores: Mapping[str, pd.DataFrame],
    identified: Mapping[str, Mapping[str, Identification]],
    dataset: MultimodalDataset,
    block_trs: int | None = None,
) -> pd.DataFrame:
    """Mean scores of every source beside each other.

    Parameters
    ----------
    scores : {source: DataFrame of `score_trs`}
    identified : {source: what `identify_source` returns}

    Returns
    -------
    DataFrame
        One row per modality and score, one column per source. To the scores come `2-way`
        (identification, chance .5) with its 95 % interval `low` to `high`, its `p` in the null of
        other times, and `top 5` with its chance.
    """
    columns = {}
    for source, table in scores.items():
        column = table.mean().to_dict()
        for name, found in identified[source].items():
            low, high = found.interval(block_trs)
            top, chance = found.top(5)
            of_name = {"2-way": found.two_way.mean(), "low": low, "high": high, "p": found.p}
            of_name |= {"top 5": top, "top 5 chance": chance}
            column |= {(name, score): value for score, value in of_name.items()}
        columns[source] = column
    table = pd.DataFrame(columns)
    return _labelled(table.loc[[name for name in STIMULI if name in table.index.levels[0]]], dataset)


def _sizes(regions: Regions) -> list[int]:
    return [int(regions.voxels(name).sum()) for name in regions.names]


def _labelled(table: pd.DataFrame, dataset: MultimodalDataset) -> pd.DataFrame:
    if dataset.simulated:
        table.columns.name = "SIMULATED data"
    return table
