"""The TR-aligned arrays of a data set, in memory or memory-mapped."""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from giblet.alignment import gap_trs, split_trs

STIMULI = ("video", "audio", "text")
CONSTANT = 1e-6  # of the largest magnitude: a feature that varies by less is constant


@dataclass(frozen=True)
class Features:
    """Row i of every array is TR i of the movie, counted over all runs; BOLD has been shifted by the lag.

    Parameters
    ----------
    video, audio, text : (n_trs, ...)
        uint8 video is luminance x 255. A stimulus that is absent is (n_trs, 0).
    fmri : (n_subjects, n_trs, n_voxels) float32
    valid : (n_subjects, n_trs) bool
        Where a subject was measured.
    split : (n_trs,) str
        'train', 'val', 'test', 'gap' or 'cropped'.
    run : (n_trs,) int
    """

    video: np.ndarray
    audio: np.ndarray
    text: np.ndarray
    fmri: np.ndarray
    valid: np.ndarray
    split: np.ndarray
    run: np.ndarray
    path: Path | None = None

    @classmethod
    def load(cls, path: Path) -> "Features":
        """The arrays of a prepared cache, memory-mapped."""
        names = ("video", "audio", "text", "fmri", "valid", "split", "run")
        return cls(*(np.load(path / f"{name}.npy", mmap_mode="r") for name in names), path)

    def __reduce__(self):
        """Travel to a worker process as a path, where there is one, instead of as a copy of every array."""
        if self.path is not None:
            return Features.load, (self.path,)
        return super().__reduce__()


def label_trs(
    run_trs: Sequence[int],
    first: Sequence[int],
    stop: Sequence[int],
    fractions: Sequence[float],
    tr: float,
    context: tuple[int, int] = (0, 0),
    test_runs: Sequence[int] = (),
) -> np.ndarray:
    """Label every TR of every run 'train', 'val', 'test', 'gap' or 'cropped'.

    Parameters
    ----------
    run_trs : TRs of each run
    first, stop : of each run
        TRs `first` to `stop` have stimulus and BOLD; the others are 'cropped', and so are those whose context
        would reach beyond them.
    context : (before, after)
        TRs of stimulus around each TR. The gap between splits is context + 1 + HRF.
    test_runs : as in `split_trs`

    Returns
    -------
    (sum(run_trs),) array of str
    """
    before, after = context
    usable = [max(0, end - after - (begin + before)) for begin, end in zip(first, stop, strict=True)]
    kept = split_trs(usable, fractions, gap_trs(tr, 1 + before + after), test_runs)
    labels = np.full(sum(run_trs), "cropped", dtype="<U7")
    start = 0
    for n_trs, begin, block in zip(run_trs, first, np.split(kept, np.cumsum(usable)[:-1]), strict=True):
        labels[start + begin + before : start + begin + before + len(block)] = block
        start += n_trs
    return labels


def mean_response(
    features: Features, subjects: Sequence[int], block_trs: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Mean over the subjects measured at each TR, and their variance around it, in blocks, in float64.

    Yields
    ------
    mean : (n_block, n_voxels), 0 where no subject was measured
    variance : (n_block,)
        Squared deviations from the mean, averaged over subjects and voxels: what the mean squared error to every
        single subject exceeds that to their mean by.
    """
    for start in range(0, features.fmri.shape[1], block_trs):
        rows = slice(start, start + block_trs)
        total, squares = 0.0, 0.0
        for subject in subjects:
            bold = features.fmri[subject, rows] * features.valid[subject, rows, None].astype(np.float64)
            total, squares = total + bold, squares + np.einsum("tv,tv->t", bold, bold)
        n_measured = np.maximum(features.valid[subjects, rows].sum(0), 1)
        mean = total / n_measured[:, None]
        variance = squares / n_measured - np.einsum("tv,tv->t", mean, mean)
        yield mean, np.maximum(variance, 0) / features.fmri.shape[2]
        release(features.fmri)


def release(array: np.ndarray) -> None:
    """Give the pages of a memory map that were read back to the system, so that they do not count as ours."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and hasattr(array._mmap, "madvise"):
            array._mmap.madvise(mmap.MADV_DONTNEED)
            return
        array = array.base


def features_from_arrays(stimuli: dict, fmri, runs, lag_trs: int, tr: float, fractions, context, test_runs) -> Features:
    """Shift, split and standardise arrays; see `MultimodalDataset.from_arrays`."""
    fmri = np.array(fmri, np.float32, ndmin=3)
    n_trs = fmri.shape[1]
    runs = [n_trs] if runs is None else list(runs)
    if sum(runs) != n_trs:
        raise ValueError(f"runs are {runs}, expected numbers of TRs that sum to the {n_trs} of fmri.")
    for name, array in stimuli.items():
        if array is not None and len(array) != n_trs:
            raise ValueError(f"{name} has {len(array)} TRs, fmri has {n_trs}: expected the same.")
    labels = label_trs(runs, [0] * len(runs), [n - lag_trs for n in runs], fractions, tr, context, test_runs)
    run, train = np.repeat(np.arange(len(runs)), runs), labels == "train"
    arrays = {name: _stimulus(name, array, train) for name, array in stimuli.items()}
    finite = np.isfinite(fmri)
    valid = finite.any(-1)
    if not valid.any() or not finite[valid].all():
        raise ValueError("fmri holds NaN in some voxels of a TR, expected in all of them or none: leave voxels out.")
    bold, measured = np.zeros_like(fmri), np.zeros_like(valid)
    for subject, index in np.ndindex(len(fmri), len(runs)):
        rows = np.flatnonzero(run == index)[: runs[index] - lag_trs]
        series, measured[subject, rows] = fmri[subject, rows + lag_trs], valid[subject, rows + lag_trs]
        fitted = measured[subject, rows] & (train[rows] if train[rows].any() else True)
        fitted = series[fitted].astype(np.float64)
        mean, sd = fitted.mean(0), fitted.std(0)
        sd = np.where(sd > 1e-6 * np.abs(mean), sd, np.inf)  # a constant voxel is 0
        bold[subject, rows] = np.where(measured[subject, rows, None], (series - mean) / sd, 0)
    return Features(**arrays, fmri=bold, valid=measured, split=labels, run=run)


def absent(n_trs: int) -> np.ndarray:
    """A stimulus that is not there: (n_trs, 0)."""
    return np.zeros((n_trs, 0), np.float32)


def varies(features: np.ndarray, train: np.ndarray) -> bool:
    """Whether any feature, of (n_trs, ...), varies over the training TRs, (n_trs,) bool, by more than rounding."""
    return any(block.any() for block in _varying_blocks(features, train))


def standardisation(features: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and SD over the training TRs, twice (n_features,) float64; the SD of a constant feature is 1."""
    mean = features[train].mean(0, dtype=np.float64)
    sd = features[train].std(0, dtype=np.float64)
    varying = np.concatenate([np.zeros(0, bool), *_varying_blocks(features, train)])
    return mean, np.where(varying, sd, 1)


def _varying_blocks(features: np.ndarray, train: np.ndarray, n_columns: int = 4096) -> Iterator[np.ndarray]:
    """Which features vary, bool, in blocks of columns: all of a movie's pixels do not fit in memory."""
    flat = features.reshape(len(features), -1)
    for start in range(0, flat.shape[1], n_columns):
        block = flat[train, start : start + n_columns]
        low = block.min(0).astype(np.float64)
        high = block.max(0).astype(np.float64)
        yield high - low > CONSTANT * np.maximum(np.abs(low), np.abs(high))
        release(features)


def _stimulus(name: str, array, train: np.ndarray) -> np.ndarray:
    if array is None:
        return absent(len(train))
    array = np.asarray(array)
    codes = name == "audio" and np.issubdtype(array.dtype, np.integer)
    pixels = name == "video" and array.dtype == np.uint8
    values = array if codes else array.reshape(len(array), -1)
    if not (codes or pixels):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds values that are not finite, expected numbers in every TR.")
    if not varies(values, train):
        print(f"{name} is the same in every training TR: taken as absent")
        return absent(len(train))
    if codes or name != "audio":
        return values
    mean, sd = standardisation(values, train)
    return ((values - mean) / sd).astype(np.float32)
