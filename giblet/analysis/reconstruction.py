"""What comes back of a movie, from predicted, measured and wrong brains, with scores that cannot be fooled."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from giblet.analysis.prediction import predict_fmri
from giblet.data import MultimodalDataset
from giblet.data.features import STIMULI
from giblet.data.provenance import check_same_data
from giblet.models import MultimodalAutoencoder, SpanAutoencoder

SOURCES = ("ceiling", "predicted", "measured", "shifted", "mean")
BATCH_TRS = 32  # TRs of video in memory at a time


def source_fmri(
    source: str, model: MultimodalAutoencoder, dataset: MultimodalDataset, subject: str | None = None
) -> np.ndarray:
    """The brain that a reconstruction starts from: (n_trs, n_voxels) float32, for the TRs of a split.

    Parameters
    ----------
    source : 'predicted', 'measured' or 'shifted'
        'predicted' is what the model makes of the movie itself: wide enough to carry it straight through, so it proves
        nothing about the brain. 'shifted' is the measured brain of another time: the split's TRs of each run, moved
        around by half their number.
    dataset : MultimodalDataset with `average=True`
    subject : str, optional
        One subject's brain instead of the mean of the group; 0, its mean, where it was not measured.
    """
    check_same_data(model.trained_on, dataset)
    if source not in SOURCES[1:4]:
        raise ValueError(f"source is {source!r}, expected one of {', '.join(SOURCES[1:4])}.")
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
    row, trs = dataset.subject_rows[names.index(subject)], dataset.tr_index
    return np.where(dataset.features.valid[row, trs, None], dataset.features.fmri[row, trs], 0)


@torch.no_grad()
def decode_batches(model: MultimodalAutoencoder, fmri: np.ndarray, batch_trs: int = BATCH_TRS) -> Iterator[dict]:
    """Reconstruct (n_trs, n_voxels) of brain: `{'video', 'audio', 'text'}` of each batch of TRs, on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    for start in range(0, len(fmri), batch_trs):
        outputs = model.decode_fmri(torch.from_numpy(np.ascontiguousarray(fmri[start : start + batch_trs])).to(device))
        yield {name: outputs[f"{name}_recon"].cpu() for name in STIMULI}


def reconstruct(
    source: str,
    model: MultimodalAutoencoder,
    dataset: MultimodalDataset,
    subject: str | None = None,
    voxels: np.ndarray | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Reconstructions of a split in batches of TRs, in the units of the data set and without context.

    Parameters
    ----------
    source : 'ceiling', 'predicted', 'measured', 'shifted' or 'mean'
        'ceiling' is the split's own video projected on the span of the training video: every reconstruction is a
        combination of training frames, and this is the best one; its audio and text are the split's own. 'mean' is the
        mean of the training TRs, the floor. The others see `source_fmri`.
    subject : str, optional
        As in `source_fmri`.
    voxels : (n_voxels,) bool, optional
        Of the brain; the others stay at their mean, 0. This is the smuggling test: leave the PREDICTED brain only the
        voxels in which nothing of the measured one is predicted. If the movie still comes back, the model has hidden it
        there, and what comes back from the predicted brain proves nothing.

    Yields
    ------
    dict of `video`, `audio`, `text` : (n_batch, n_features)
    """
    check_same_data(model.trained_on, dataset)
    if source not in ("ceiling", "mean"):
        fmri = source_fmri(source, model, dataset, subject)
        batches = decode_batches(model, fmri if voxels is None else np.where(voxels, fmri, np.float32(0)))
    else:
        batches = _reference_batches(source, model, dataset)
    for batch in batches:
        yield {name: dataset.own(name, values) for name, values in batch.items()}


def _reference_batches(source: str, model: MultimodalAutoencoder, dataset: MultimodalDataset) -> Iterator[dict]:
    """The 'ceiling' or the 'mean', with context."""
    for start in range(0, dataset.n_trs, BATCH_TRS):
        rows = dataset.tr_index[start : start + BATCH_TRS]
        batch = {name: dataset.stimulus(name, rows) for name in STIMULI}
        if source == "mean":
            batch = {name: typical(dataset, name).expand_as(values) for name, values in batch.items()}
        elif isinstance(model, SpanAutoencoder):
            basis = model.video_basis
            coordinates = basis.coordinates(batch["video"].to(next(model.parameters()).device))
            batch["video"] = basis.expand(coordinates).cpu()
        yield batch


def collect(batches: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
    """All batches as one: {'video', 'audio', 'text'}, each (n_trs, n_features)."""
    parts = list(batches)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def stimulus_batches(dataset: MultimodalDataset, batch_trs: int = BATCH_TRS) -> Iterator[dict[str, Tensor]]:
    """The movie itself, as `reconstruct` gives it."""
    for start in range(0, dataset.n_trs, batch_trs):
        rows = dataset.tr_index[start : start + batch_trs]
        yield {name: dataset.own(name, dataset.stimulus(name, rows)) for name in STIMULI}


def typical(dataset: MultimodalDataset, name: str) -> Tensor:
    """The training mean of a modality, (n_features,); of codes, which have none, the commonest of each place."""
    stored = getattr(dataset.features, name)
    if stored.ndim == 2:
        return dataset.train_mean(name)
    return torch.from_numpy(stored[dataset.split_labels == "train"].astype(np.int64)).mode(0).values


def similarity(
    batches: Iterator[dict[str, Tensor]], dataset: MultimodalDataset, names: Sequence[str] = STIMULI
) -> dict[str, np.ndarray]:
    """How alike every reconstruction is to every TR of a split: {name: (n_reconstructed, n_trs)} float32.

    The cosine of what distinguishes the two from the training mean, so that looking like the average film is worth
    nothing and the mean itself is alike to nothing (0). Of codes, the share that is the same.
    """
    own = {name: dataset.own(name, dataset.stimulus(name, dataset.tr_index)) for name in names}
    target = {name: _deviations(values, dataset, name) for name, values in own.items()}
    parts = {name: [] for name in names}
    for batch in batches:
        for name in names:
            if batch[name].ndim > 2:
                same = [(row == target[name]).float().flatten(1).mean(1) for row in batch[name]]
                parts[name].append(torch.stack(same))
            else:
                parts[name].append(_deviations(batch[name].float(), dataset, name) @ target[name].T)
    return {name: torch.cat(rows).numpy() for name, rows in parts.items()}


def _deviations(values: Tensor, dataset: MultimodalDataset, name: str) -> Tensor:
    """Unit vectors from the training mean to each row; 0 for what is the mean but for rounding."""
    if values.ndim > 2:
        return values
    mean = dataset.own(name, dataset.train_mean(name)[None])
    away = values - mean
    length = away.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-5 * mean.norm(), away / length.clamp(min=1e-30), 0)
