"""The brains that are decoded and lesioned: predicted, measured, and of the wrong time."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from giblet.analysis.chance import voxelwise_null
from giblet.analysis.prediction import predict_fmri
from giblet.data import MultimodalDataset
from giblet.data.provenance import check_same_data
from giblet.models import MultimodalAutoencoder

BRAINS = ("raw", "noisy", "predicted", "measured", "shifted")
SIGNIFICANT = 0.05  # the largest p of a voxel that keeps some of its prediction


def source_fmri(
    model: MultimodalAutoencoder,
    dataset: MultimodalDataset,
    source: str = "measured",
    subject: str | None = None,
    random_state: int = 0,
) -> np.ndarray:
    """The brain that a reconstruction starts from: (n_trs, n_voxels) float32.

    The TRs are those of the split.

    Parameters
    ----------
    dataset : MultimodalDataset with `average=True`
    source : 'raw', 'noisy', 'predicted', 'measured' or 'shifted'
        'raw' is what the model makes of the movie itself: wide enough to carry it straight through,
        so it proves nothing about the brain. 'noisy' is the same with noise as large as its error
        on the validation TRs. 'predicted' is the predicted brain that may be decoded: it keeps of
        each voxel what the model explains of it on the validation TRs, see `Explained`, and noise
        as large as what is then left unexplained. 'shifted' is the measured brain of another time:
        the split's TRs of each run, moved around by half their number.
    subject : str, optional
        One subject's measured brain instead of the mean of the group; 0, its mean, where it was not
        measured.
    random_state : int
        Of the noise, which is the same for a TR whichever split it is asked through.

    Raises
    ------
    ValueError
        If the source is unknown, or 'noisy' or 'predicted' of data without validation TRs.
    """
    check_same_data(model.trained_on, dataset)
    if source not in BRAINS:
        raise ValueError(f"source is {source!r}, expected one of {', '.join(BRAINS)}.")
    if source in ("measured", "shifted"):
        fmri = dataset.fmri() if subject is None else _one_subject(dataset, subject)
        return fmri[shifted_rows(dataset.run)] if source == "shifted" else fmri
    if source == "raw":
        return predict_fmri(model, dataset)
    if "val" not in dataset.split_labels:
        raise ValueError(
            f"source is {source!r}, which the data set has no validation TRs for: take the source "
            "'raw', or a split with validation TRs."
        )
    known = explained(model, dataset)
    gain, sd = (1, known.raw_sd) if source == "noisy" else (known.gain, known.residual_sd)
    noise = [_noise(len(known.r), tr, random_state) for tr in dataset.tr_index.tolist()]
    return (gain * predict_fmri(model, dataset) + sd * np.stack(noise)).astype(np.float32)


def _noise(n_voxels: int, tr: int, random_state: int) -> np.ndarray:
    """Standard normal noise of a TR of the movie: (n_voxels,) float32."""
    return np.random.default_rng((random_state, tr)).standard_normal(n_voxels, np.float32)


@dataclass(frozen=True, eq=False)
class Explained:
    """What a model explains of each voxel's mean response on the validation TRs.

    Parameters
    ----------
    r : (n_voxels,)
        Correlation within runs, see `voxelwise_null`; NaN where a voxel does not vary.
    p : (n_voxels,)
        Of `r` in its null.
    gain : (n_voxels,)
        max(0, r) where p is below .05, else 0: of a voxel in which nothing is predicted, the
        predicted brain shows nothing.
    raw_sd, residual_sd : (n_voxels,)
        Root mean square of the measured response minus the prediction, and minus `gain` times the
        prediction.
    """

    r: np.ndarray
    p: np.ndarray
    gain: np.ndarray
    raw_sd: np.ndarray
    residual_sd: np.ndarray


_kept: WeakKeyDictionary[MultimodalAutoencoder, tuple[tuple, Explained]] = WeakKeyDictionary()


def explained(model: MultimodalAutoencoder, dataset: MultimodalDataset) -> Explained:
    """What `model` explains on the validation TRs of a data set of any split.

    That of the last data set is kept, until weights change.
    """
    versions = tuple(values._version for values in model.state_dict().values())
    key = (dataset.provenance["hash"], versions)
    if model not in _kept or _kept[model][0] != key:
        _kept[model] = key, _explained(model, dataset)
    return _kept[model][1]


def _explained(model: MultimodalAutoencoder, dataset: MultimodalDataset) -> Explained:
    if model.merged is not None:  # they were fitted on the validation TRs as well
        return Explained(**model.merged.explained)
    whole = dataset.select("all", average=True)
    return explained_by(predict_fmri(model, whole), whole)


def explained_by(fmri_pred: np.ndarray, whole: MultimodalDataset) -> Explained:
    """What a prediction explains on the validation TRs.

    Parameters
    ----------
    fmri_pred : (n_trs, n_voxels)
        For all TRs of `whole`, which has `split='all'` and `average=True`.
    """
    rows = whole.split_labels[whole.tr_index] == "val"
    fmri = whole.fmri()
    r, p = voxelwise_null(fmri_pred, fmri, whole.run, rows, whole.gap)
    gain = np.where(p < SIGNIFICANT, np.maximum(r, 0), 0).astype(np.float32)
    errors = [fmri[rows] - share * fmri_pred[rows] for share in (1, gain)]
    sds = [np.sqrt(np.square(error).mean(0)) for error in errors]
    return Explained(r, p, gain, *sds)


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
