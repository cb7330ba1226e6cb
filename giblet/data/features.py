"""The TR-aligned arrays of a data set, in memory or memory-mapped."""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from giblet.alignment import gap_trs, split_trs
from giblet.data.provenance import fingerprint_array

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

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """A hash of each stimulus and of the responses."""
        return {name: fingerprint_array(getattr(self, name)) for name in (*STIMULI, "fmri")}

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
