"""Predictions by ridge regression, what each modality adds to them, and how a bad split flatters.

The regression itself is in `giblet.analysis.ridge`.
"""

from copy import copy

import numpy as np
from himalaya import scoring

from giblet.analysis.ridge import ALPHAS, RidgeEncoder
from giblet.data import MultimodalDataset


def ridge_predictions(
    train: MultimodalDataset,
    target: MultimodalDataset,
    alphas: np.ndarray = ALPHAS,
    n_folds: int = 5,
) -> np.ndarray:
    """Fit ridge regression on some TRs, predict others: the share of each modality.

    Shrinkage and the weights of the modalities are chosen by cross-validation inside `train`, see
    `RidgeEncoder.fit`.

    Parameters
    ----------
    train, target : MultimodalDataset with `average=True`
        `fitting_trs` gives the TRs that a prediction of the test TRs may be fitted on.
    alphas : array
        Shrinkages tried, relative to the mean power of the features.

    Returns
    -------
    (n_modalities, n_trs, n_voxels) float32
        In the order of `bands_of`; their sum over modalities is the prediction, the mean of the
        training responses aside.
    """
    encoder = RidgeEncoder.fit(train, None, alphas, n_folds)
    return encoder.shares(target)


def fitting_trs(dataset: MultimodalDataset, split: str = "test") -> MultimodalDataset:
    """The TRs that a prediction of `split` may be fitted on, with the mean response.

    For 'test' the training and the validation TRs, for 'val' the training TRs.
    """
    part = dataset.select("all", average=True)
    allowed = ("train", "val") if split == "test" else ("train",)
    rows = np.isin(part.split_labels[part.tr_index], allowed)
    part.tr_index = part.tr_index[rows]
    part.run = part.run[rows]
    return part


def correlation_score_split(parts: np.ndarray, fmri: np.ndarray, run: np.ndarray) -> np.ndarray:
    """What each modality adds to r of the joint prediction: their sum is r.

    Parameters
    ----------
    parts : (n_modalities, n_trs, n_voxels)
    fmri : (n_trs, n_voxels)
    run : (n_trs,)

    Returns
    -------
    (n_modalities, n_voxels) float64, within runs, averaged as in `voxelwise_correlation`.
    """
    r = np.zeros(())
    for index in np.unique(run):
        rows = run == index
        r = r + rows.mean() * scoring.correlation_score_split(
            fmri[rows].astype(np.float64), parts[:, rows].astype(np.float64)
        )
    return r


def random_split(
    dataset: MultimodalDataset, random_state: int = 0
) -> tuple[MultimodalDataset, MultimodalDataset]:
    """A split that LEAKS: training and test TRs drawn at random, without a gap.

    It shows what such a split would have claimed.

    Parameters
    ----------
    dataset : MultimodalDataset with `split='all'` and `average=True`

    Returns
    -------
    train, test : MultimodalDataset
        With as many TRs as the splits of these names.
    """
    order = np.random.default_rng(random_state).permutation(dataset.n_trs)
    n_train, n_test = (int((dataset.split_labels == name).sum()) for name in ("train", "test"))
    parts = copy(dataset), copy(dataset)
    for part, rows in zip(parts, (order[:n_train], order[n_train : n_train + n_test]), strict=True):
        part.tr_index = dataset.tr_index[rows]
        part.run = dataset.run[rows]
        part.gap = 0
    return parts
