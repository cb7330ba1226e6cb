"""The field's baseline: banded ridge regression from the model's own features to every voxel.

Dupré la Tour et al. (2022), NeuroImage 264:119728, by their package himalaya.
"""

from collections.abc import Iterator
from copy import copy

import numpy as np
import torch
from himalaya import scoring
from himalaya.kernel_ridge import MultipleKernelRidgeCV

from giblet.data import MultimodalDataset
from giblet.data.features import STIMULI

ALPHAS = np.logspace(-3, 5, 17)
BLOCK_ROWS = 64  # TRs of features in memory at a time


def ridge_predictions(
    train: MultimodalDataset,
    target: MultimodalDataset,
    n_iter: int = 30,
    alphas: np.ndarray = ALPHAS,
    n_folds: int = 5,
    random_state: int = 0,
) -> np.ndarray:
    """Fit on one split, predict another: the share of each modality in the prediction.

    One band a modality, as items of the data set give it, context included, centred by the training
    TRs. Shrinkage and the weights of the bands are chosen for each voxel by cross-validation over
    contiguous folds of the training TRs, with the gap of the splits around each.

    Parameters
    ----------
    train, target : MultimodalDataset with `average=True`
    n_iter : int
        Band weights tried, drawn from Dirichlet distributions.
    alphas : array
        Shrinkages tried, relative to the mean power of a band.
    random_state : int
        Of the draws.

    Returns
    -------
    (n_modalities, n_trs, n_voxels) float32
        In the order of `train.present`; their sum over modalities is the prediction.
    """
    bands = [name for name in STIMULI if name in train.present]
    kernels = np.stack([stimulus_kernel(name, train, train) for name in bands])
    scale = np.trace(kernels, axis1=1, axis2=2)[:, None, None] / train.n_trs
    fmri = train.fmri()
    solver = {
        "n_iter": n_iter,
        "alphas": alphas,
        "progress_bar": False,
        "n_targets_batch": 4096,
        "n_alphas_batch": 4,
    }
    model = MultipleKernelRidgeCV(
        "precomputed",
        solver_params=solver,
        cv=contiguous_folds(train, n_folds),
        random_state=random_state,
    )
    model.fit((kernels / scale).astype(np.float32), fmri - fmri.mean(0))
    across = np.stack([stimulus_kernel(name, target, train) for name in bands]) / scale
    return np.asarray(model.predict(across.astype(np.float32), split=True))


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


def stimulus_kernel(name: str, left: MultimodalDataset, train: MultimodalDataset) -> np.ndarray:
    """Products of features centred by the training TRs: (n_left, n_train) float64.

    They are computed in blocks of TRs.
    """
    mean = stimulus_mean(name, train)
    kernel = np.empty((left.n_trs, train.n_trs))
    for rows, x in stimulus_blocks(name, left):
        x.sub_(mean)
        for columns, y in stimulus_blocks(name, train, rows.start if left is train else 0):
            kernel[rows, columns] = torch.mm(x, y.sub_(mean).T).numpy()
            if left is train:
                kernel[columns, rows] = kernel[rows, columns].T
    return kernel


def stimulus_mean(name: str, dataset: MultimodalDataset) -> torch.Tensor:
    """Mean of a stimulus over the TRs of a data set, context included: (n_features,)."""
    total = torch.zeros(())
    for _, x in stimulus_blocks(name, dataset):
        total = total + x.double().sum(0)
    return total.div(dataset.n_trs).float()


def stimulus_blocks(
    name: str, dataset: MultimodalDataset, first: int = 0
) -> Iterator[tuple[slice, torch.Tensor]]:
    """A stimulus from the row `first` of a data set on, in blocks of TRs with their rows.

    Values are a copy, with context.
    """
    for start in range(first, dataset.n_trs, BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        yield rows, dataset.stimulus(name, dataset.tr_index[rows])


def contiguous_folds(train: MultimodalDataset, n_folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Contiguous folds, each with the training TRs that are far enough from it.

    Those are in another run, or farther away than the gap. Folds without any are left out.

    Raises
    ------
    ValueError
        Where no fold has any.
    """
    trs = train.tr_index
    run = train.run
    folds = []
    for held_out in np.array_split(np.arange(train.n_trs), n_folds):
        near = np.zeros(train.n_trs, bool)
        near[held_out] = True
        for index in np.unique(run[held_out]):
            own = trs[held_out][run[held_out] == index]
            near |= (run == index) & (np.abs(trs[:, None] - own).min(1) <= train.gap)
        if not near.all():
            folds.append((np.flatnonzero(~near), held_out))
    if not folds:
        raise ValueError(
            f"ridge regression has {train.n_trs} training TRs to choose its shrinkage in, expected "
            f"more than one gap of {train.gap} TRs between folds: take longer runs, or leave the "
            "comparison out."
        )
    return folds
