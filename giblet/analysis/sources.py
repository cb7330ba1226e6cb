"""The brains that are decoded and lesioned: predicted, measured, and of the wrong time."""

import numpy as np
import torch
from torch import Tensor

from giblet.analysis.prediction import predict_fmri
from giblet.data import MultimodalDataset
from giblet.data.provenance import check_same_data
from giblet.models import MultimodalAutoencoder

BRAINS = ("predicted", "measured", "shifted")


def source_fmri(
    model: MultimodalAutoencoder,
    dataset: MultimodalDataset,
    source: str = "measured",
    subject: str | None = None,
) -> np.ndarray:
    """The brain that a reconstruction starts from: (n_trs, n_voxels) float32.

    The TRs are those of the split.

    Parameters
    ----------
    dataset : MultimodalDataset with `average=True`
    source : 'predicted', 'measured' or 'shifted'
        'predicted' is what the model makes of the movie itself: wide enough to carry it straight
        through, so it proves nothing about the brain. 'shifted' is the measured brain of another
        time: the split's TRs of each run, moved around by half their number.
    subject : str, optional
        One subject's brain instead of the mean of the group; 0, its mean, where it was not
        measured.
    """
    check_same_data(model.trained_on, dataset)
    if source not in BRAINS:
        raise ValueError(f"source is {source!r}, expected one of {', '.join(BRAINS)}.")
    if source == "predicted":
        return predict_fmri(model, dataset)
    fmri = dataset.fmri() if subject is None else _one_subject(dataset, subject)
    return fmri[shifted_rows(dataset.run)] if source == "shifted" else fmri


def shifted_rows(run: np.ndarray) -> np.ndarray:
    """Row of another time for each TR, half of its run's TRs away, around in a circle: (n_trs,)."""
    order = np.arange(len(run))
    for index in np.unique(run):
        rows = np.flatnonzero(run == index)
        order[rows] = np.roll(rows, len(rows) // 2)
    return order


def _one_subject(dataset: MultimodalDataset, subject: str) -> np.ndarray:
    names = dataset.subjects
    if subject not in names:
        raise ValueError(f"subject is {subject!r}, expected one of {', '.join(names)}.")
    row = dataset.subject_rows[names.index(subject)]
    trs = dataset.tr_index
    return np.where(dataset.features.valid[row, trs, None], dataset.features.fmri[row, trs], 0)


def typical(dataset: MultimodalDataset, name: str) -> Tensor:
    """The training mean of a modality: (n_features,).

    Codes have no mean: of them, the commonest in each place.
    """
    stored = getattr(dataset.features, name)
    if stored.ndim == 2:
        return dataset.train_mean(name)
    return torch.from_numpy(stored[dataset.split_labels == "train"].astype(np.int64)).mode(0).values
