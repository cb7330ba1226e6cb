"""How well a prediction follows a measurement over time, voxel by voxel."""

import numpy as np
from himalaya import scoring

from giblet.analysis.chance import varying_voxels
from giblet.data import MultimodalDataset
from giblet.data.provenance import check_held_out


def voxelwise_correlation(fmri_pred: np.ndarray, fmri: np.ndarray, run: np.ndarray) -> np.ndarray:
    """Pearson r of each voxel over time, within runs, averaged over runs by their number of TRs.

    Parameters
    ----------
    fmri_pred, fmri : (n_trs, n_voxels)
    run : (n_trs,)

    Returns
    -------
    (n_voxels,) float64, NaN where prediction or measurement does not vary, or by rounding only.
    """
    r = np.zeros(fmri.shape[1])
    for index in np.unique(run):
        x = np.asarray(fmri_pred[run == index])
        y = np.asarray(fmri[run == index])
        varying = varying_voxels(x) & varying_voxels(y)
        with np.errstate(divide="ignore", invalid="ignore"):
            own = scoring.correlation_score(y.astype(np.float64), x.astype(np.float64))
        r += (run == index).mean() * np.where(varying, own, np.nan)
    return r


def r2_score(fmri_pred: np.ndarray, fmri: np.ndarray, run: np.ndarray) -> np.ndarray:
    """R2 of each voxel: 1 - squared error / squared distance to the mean.

    Averaged over runs as r is.

    Unlike r it asks for the right size and the right mean, and falls below 0 where the mean would
    do better.

    Parameters
    ----------
    fmri_pred, fmri : (n_trs, n_voxels)
    run : (n_trs,)

    Returns
    -------
    (n_voxels,) float64, NaN where the measurement does not vary, or by rounding only.
    """
    r2 = np.zeros(fmri.shape[1])
    for index in np.unique(run):
        x = np.asarray(fmri_pred[run == index], np.float64)
        y = np.asarray(fmri[run == index])
        with np.errstate(divide="ignore", invalid="ignore"):
            own = scoring.r2_score(y.astype(np.float64), x)
        r2 += (run == index).mean() * np.where(varying_voxels(y), own, np.nan)
    return r2


def subject_correlations(
    fmri_pred: np.ndarray, dataset: MultimodalDataset, block_voxels: int = 4096
) -> np.ndarray:
    """r of the prediction with each subject over the TRs in which it was measured.

    Parameters
    ----------
    fmri_pred : (n_trs, n_voxels)
        For the TRs of `dataset`, which holds none of training and has `average=False`.

    Returns
    -------
    (n_subjects, n_voxels) float64; its ceiling is `inter_subject_correlation`.
    """
    if dataset.average:
        raise ValueError("the dataset holds the subjects' mean: give one with average=False.")
    check_held_out(dataset)
    blocks = []
    for start in range(0, fmri_pred.shape[1], block_voxels):
        part = slice(start, start + block_voxels)
        fmri = dataset.fmri(part)
        scores = []
        for own in fmri:
            rows = np.isfinite(own[:, 0])
            scores.append(
                voxelwise_correlation(fmri_pred[rows, part], own[rows], dataset.run[rows])
            )
        blocks.append(np.stack(scores))
    return np.concatenate(blocks, axis=1)
