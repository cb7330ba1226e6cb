"""A data set from arrays: shifted, split and standardised as a folder is."""

from collections.abc import Callable, Sequence

import numpy as np

from giblet.alignment.splits import Splitting, label_trs
from giblet.data.features import (
    Features,
    absent,
    loses_in_float32,
    run_statistics,
    standardisation,
    varies,
    zscored,
)
from giblet.data.video import SOURCE_FPS, VideoProcessor


def features_from_arrays(
    stimuli: dict, fmri, runs, lag_trs: int, tr: float, splitting: Splitting
) -> Features:
    """Shift, split and standardise arrays; see `MultimodalDataset.from_arrays`."""
    fmri = _responses(fmri)
    runs = check_lengths(stimuli, fmri.shape[1], runs)
    labels = label_trs(runs, [0] * len(runs), [n - lag_trs for n in runs], tr, splitting)
    train = labels == "train"
    arrays = {name: standardised_stimulus(name, array, train) for name, array in stimuli.items()}
    finite = np.isfinite(fmri)
    valid = finite.any(-1)
    if not valid.any() or not finite[valid].all():
        raise ValueError(
            "fmri holds NaN in some voxels of a TR and not in others, expected in all or none: "
            "leave voxels out."
        )
    bold = np.zeros(fmri.shape, np.float32)
    measured = np.zeros_like(valid)
    stops = np.cumsum(runs)
    for subject, index in np.ndindex(len(fmri), len(runs)):
        run = slice(stops[index] - runs[index], stops[index])
        rows = slice(run.start, run.stop - lag_trs)
        read = slice(run.start + lag_trs, run.stop)
        own_train = np.concatenate([np.zeros(lag_trs, bool), train[rows]])  # in TRs of fmri
        mean, sd, voxels = run_statistics(fmri[subject, run], valid[subject, run], own_train)
        measured[subject, rows] = valid[subject, read]
        sd = np.where(voxels, sd, 0)  # a constant voxel is 0
        bold[subject, rows] = zscored(fmri[subject, read], mean, sd, measured[subject, rows])
    run_index = np.repeat(np.arange(len(runs)), runs)
    return Features(**arrays, fmri=bold, valid=measured, split=labels, run=run_index)


def _responses(fmri) -> np.ndarray:
    """(n_subjects, n_trs, n_voxels), float32 where that does not round the signal away."""
    fmri = np.array(fmri, ndmin=3)
    if fmri.dtype.kind not in "fiub":
        raise ValueError(
            f"fmri holds {fmri.dtype} values, expected real numbers: convert it, for instance to "
            "magnitude."
        )
    if any(loses_in_float32(subject) for subject in fmri):
        return fmri.astype(np.float64, copy=False)
    return fmri.astype(np.float32, copy=False)


def check_lengths(stimuli: dict, n_trs: int, runs: Sequence[int] | None) -> list[int]:
    """TRs of each run, if they and the stimuli fit the TRs of fMRI."""
    runs = [n_trs] if runs is None else [int(n) for n in runs]
    if sum(runs) != n_trs:
        raise ValueError(
            f"runs are {runs}, expected numbers of TRs that sum to the {n_trs} of fmri."
        )
    for name, array in stimuli.items():
        if array is not None and len(array) != n_trs:
            raise ValueError(f"{name} has {len(array)} TRs, fmri has {n_trs}: expected the same.")
    return runs


def standardised_stimulus(
    name: str, array, train: np.ndarray, say: Callable[[str], object] = print
) -> np.ndarray:
    """The features of one modality as they are stored: (n_trs, n_features), or codes."""
    if array is None:
        return absent(len(train))
    array = np.asarray(array)
    codes = name == "audio" and np.issubdtype(array.dtype, np.integer)
    pixels = name == "video" and array.dtype == np.uint8
    values = array if codes else array.reshape(len(array), -1)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name} holds values that are not finite, expected numbers in every TR: fill them in "
            "or leave the features out."
        )
    if not varies(values, train):
        say(f"{name} is the same in every training TR: taken as absent")
        return absent(len(train))
    if codes or pixels:
        return values
    mean, sd = standardisation(values, train)
    if name == "text":  # one unit for all of an embedding: a rare word stays rare
        changes = values[train].var(0, dtype=np.float64) > 0
        sd = np.where(changes, np.sqrt(np.square(sd[changes]).mean()), 1)
    return ((values - mean) / sd).astype(np.float32)


def frames_of(video, tr: float) -> VideoProcessor | None:
    """The processor whose frames uint8 video (n_trs, n_frames, height, width[, 3]) holds.

    One frame a TR may be (n_trs, height, width[, 3]). None where the values are no frames.
    """
    video = np.asarray(video)
    if video.dtype != np.uint8 or video.ndim < 3:
        return None
    colour = video.ndim > 3 and video.shape[-1] == 3
    frames = video.shape[1:-1] if colour else video.shape[1:]
    if len(frames) not in (2, 3):
        return None
    n_frames = frames[0] if len(frames) == 3 else 1
    return VideoProcessor(*frames[-2:], frame_skip=tr * SOURCE_FPS / n_frames, colour=colour, tr=tr)
