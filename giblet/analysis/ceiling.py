"""How well a brain could be predicted at all, by a model that knew what the subjects share."""

import numpy as np

from giblet.analysis.correlation import voxelwise_correlation
from giblet.data import MultimodalDataset


def inter_subject_correlation(dataset: MultimodalDataset, block_voxels: int = 4096) -> np.ndarray:
    """Leave-one-out inter-subject correlation over time, with the mean of the others.

    The ceiling of single-subject scores where every subject saw the film once. Nastase et al.
    (2019), SCAN 14:667-685. TRs in which a subject was not measured are left out of its r and of
    the others' mean.

    Parameters
    ----------
    dataset : MultimodalDataset with `average=False` and two subjects or more

    Returns
    -------
    (n_subjects, n_voxels) float64
    """
    _check_subjects("inter-subject correlation", dataset)
    n_voxels = dataset.model_dims["n_voxels"]
    blocks = []
    for start in range(0, n_voxels, block_voxels):
        fmri = dataset.fmri(slice(start, start + block_voxels))
        measured = np.isfinite(fmri[:, :, 0])
        total = np.nansum(fmri, axis=0)
        count = measured.sum(0)
        scores = []
        for own, mine in zip(fmri, measured, strict=True):
            rows = mine & (count > 1)
            others = (total[rows] - own[rows]) / (count[rows, None] - 1)
            scores.append(voxelwise_correlation(own[rows], others, dataset.run[rows]))
        blocks.append(np.stack(scores))
    return np.concatenate(blocks, axis=1)


def shared_voxels(dataset: MultimodalDataset) -> np.ndarray:
    """Voxels whose inter-subject correlation is above its median: (n_voxels,) bool.

    The correlation is the leave-one-out one, averaged over subjects.

    They say more of a model than all voxels do, most of which answer no movie. Of one subject, and
    where no voxel is above the median, these are all voxels.
    """
    every = np.ones(dataset.model_dims["n_voxels"], bool)
    if len(dataset.subjects) < 2:
        return every
    isc = inter_subject_correlation(dataset.per_subject()).mean(0)
    if np.isnan(isc).all():
        return every
    shared = isc > np.nanmedian(isc)
    return shared if shared.any() else every


def split_half_reliability(
    dataset: MultimodalDataset, n_splits: int = 20, random_state: int = 0, block_voxels: int = 4096
) -> np.ndarray:
    """Share of the mean response's variance that another group would have in common.

    The other group has as many subjects.

    The correlation of the means of two random halves of the subjects, averaged over splits and
    stepped up by Spearman-Brown to all subjects. A prediction of the mean response can have an r of
    its root at most, see `prediction_ceiling`.

    Parameters
    ----------
    dataset : MultimodalDataset with `average=False` and two subjects or more
        TRs in which a half was not measured are left out.

    Returns
    -------
    (n_voxels,) float64; where there is nothing in common it is as often below 0 as above
    """
    _check_subjects("split-half reliability", dataset)
    rng = np.random.default_rng(random_state)
    n_subjects = len(dataset.subjects)
    orders = [rng.permutation(n_subjects) for _ in range(n_splits)]
    blocks = []
    for start in range(0, dataset.model_dims["n_voxels"], block_voxels):
        fmri = dataset.fmri(slice(start, start + block_voxels))
        measured = np.isfinite(fmri[:, :, 0])
        r = np.mean(
            [_half_correlation(fmri, measured, order, dataset.run) for order in orders], axis=0
        )
        blocks.append(2 * r / (1 + r))
    return np.concatenate(blocks)


def prediction_ceiling(reliability: np.ndarray) -> np.ndarray:
    """Highest r that a prediction can have: the root of the reliability, 0 below 0."""
    return np.sqrt(np.maximum(reliability, 0))


def over_ceiling(r: np.ndarray, ceiling: np.ndarray, lowest: float = 0.1) -> np.ndarray:
    """r as a share of its ceiling.

    NaN where the ceiling is below `lowest`, as the share would be noise over noise.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(ceiling >= lowest, r / ceiling, np.nan)


def _half_correlation(
    fmri: np.ndarray, measured: np.ndarray, order: np.ndarray, run: np.ndarray
) -> np.ndarray:
    halves = np.array_split(order, 2)
    rows = np.logical_and(*(measured[half].any(0) for half in halves))
    means = [
        np.nansum(fmri[half][:, rows], axis=0) / measured[half][:, rows].sum(0)[:, None]
        for half in halves
    ]
    return voxelwise_correlation(means[0], means[1], run[rows])


def _check_subjects(name: str, dataset: MultimodalDataset) -> None:
    if dataset.average or len(dataset.subjects) < 2:
        raise ValueError(
            f"{name} needs two subjects or more: give a dataset of them, with average=False."
        )
