"""The TR-aligned arrays of a data set, in memory or memory-mapped."""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from giblet.data.provenance import fingerprint_array

STIMULI = ("video", "audio", "text")
BLOCK_TRS = 64  # read at a time, so that no whole series is held in memory
CONSTANT = 1e-6  # of the largest magnitude: a feature that varies by less is constant
# but not one of float64 whose values differ by less than neighbours in float32
EXACT = 1e-13  # of the largest magnitude: rounding of float64
N_COLUMNS = 4096  # features looked at together
STEADY = 1000  # median over its median absolute deviation: above, float32 rounds visibly


@dataclass(frozen=True)
class Features:
    """Row i of every array is TR i of the movie, counted over all runs.

    BOLD has been shifted by the lag.

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

    @cached_property
    def _means(self) -> dict[str, np.ndarray]:
        return {}

    def train_mean(self, name: str) -> np.ndarray:
        """Mean of a stimulus over the training TRs, in its stored unit: (n_features,) float32."""
        if name not in self._means:
            shown = getattr(self, name)[self.split == "train"]
            self._means[name] = shown.mean(0, dtype=np.float32)
        return self._means[name]

    def __reduce__(self):
        """Travel to a worker process as a path where there is one, not as copies of arrays."""
        if self.path is not None:
            return Features.load, (self.path,)
        return super().__reduce__()


def mean_response(
    features: Features, subjects: Sequence[int], block_trs: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Mean over the subjects measured at each TR, and their variance around it.

    Both come in blocks of TRs and are computed in float64.

    Yields
    ------
    mean : (n_block, n_voxels), 0 where no subject was measured
    variance : (n_block,)
        Squared deviations from the mean, averaged over subjects and voxels: what the mean squared
        error to every single subject exceeds that to their mean by.
    """
    for start in range(0, features.fmri.shape[1], block_trs):
        rows = slice(start, start + block_trs)
        total = 0.0
        squares = 0.0
        for subject in subjects:
            bold = features.fmri[subject, rows] * features.valid[subject, rows, None].astype(
                np.float64
            )
            total = total + bold
            squares = squares + np.einsum("tv,tv->t", bold, bold)
        n_measured = np.maximum(features.valid[subjects, rows].sum(0), 1)
        mean = total / n_measured[:, None]
        variance = squares / n_measured - np.einsum("tv,tv->t", mean, mean)
        yield mean, np.maximum(variance, 0) / features.fmri.shape[2]
        release(features.fmri)


def release(array: np.ndarray) -> None:
    """Give the pages read from a memory map back to the system.

    They then do not count as memory of this process.
    """
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and hasattr(array._mmap, "madvise"):
            array._mmap.madvise(mmap.MADV_DONTNEED)
            return
        array = array.base


def absent(n_trs: int) -> np.ndarray:
    """A stimulus that is not there: (n_trs, 0)."""
    return np.zeros((n_trs, 0), np.float32)


def varies(features: np.ndarray, train: np.ndarray) -> bool:
    """Whether any feature varies over the training TRs by more than rounding.

    Features are (n_trs, ...), training TRs (n_trs,) bool.
    """
    return any(block.any() for block in _varying_blocks(features, train))


def standardisation(features: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and SD over the training TRs: (n_features,) float64 each.

    The SD of a constant feature is 1.
    """
    mean = features[train].mean(0, dtype=np.float64)
    sd = features[train].std(0, dtype=np.float64)
    varying = np.concatenate([np.zeros(0, bool), *_varying_blocks(features, train)])
    return mean, np.where(varying, sd, 1)


def loses_in_float32(bold: np.ndarray) -> bool:
    """Whether any voxel of (n_trs, n_voxels) is so large for its variation that float32 loses it.

    Never of values that are float32, or integers of 16 bits, already.
    """
    if np.can_cast(bold.dtype, np.float32):
        return False
    bold = bold[:, np.isfinite(bold).all(0)]
    median = np.median(bold, axis=0)
    deviation = np.median(np.abs(bold - median), axis=0)
    return bool(((deviation > 0) & (np.abs(median) > STEADY * deviation)).any())


@np.errstate(invalid="ignore")  # of infinite voxels, which are left out
def run_statistics(
    bold: np.ndarray, usable: np.ndarray, train: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What z-scores one run of one subject: mean and SD over its usable training TRs.

    Of a run without training TRs they are those of all its usable TRs. Files and arrays are both
    standardised by this function and `zscored`.

    Parameters
    ----------
    bold : (n_trs, n_voxels)
        Read in blocks.
    usable, train : (n_trs,) bool

    Returns
    -------
    mean, sd : (n_voxels,) float64
        0 where fewer than two TRs can be used.
    voxels : (n_voxels,) bool
        Finite in every usable TR, and varying.
    """
    mean, sd = np.zeros((2, bold.shape[1]))
    voxels = np.ones(bold.shape[1], bool)
    rows = np.flatnonzero(usable)
    fitted = np.flatnonzero(usable & train)
    if len(fitted) == 0:
        fitted = rows
    if len(fitted) < 2:
        return mean, sd, voxels
    first = bold[fitted[0]].astype(np.float64)  # subtracted, so squares stay exact
    first = np.where(np.isfinite(first), first, 0)
    total, squares = np.zeros((2, bold.shape[1]))
    for part in np.array_split(rows, -(-len(rows) // BLOCK_TRS)):
        block = bold[part] - first
        voxels &= np.isfinite(block).all(0)
        block = block[np.isin(part, fitted)]
        total += block.sum(0)
        squares += np.square(block).sum(0)
        release(bold)
    mean = total / len(fitted)
    sd = np.sqrt(np.maximum(squares / len(fitted) - mean**2, 0))
    mean += first
    varying = sd > CONSTANT * np.abs(mean)
    doubtful = np.flatnonzero(voxels & ~varying & (sd > EXACT * np.abs(mean)))
    for start in range(0, len(doubtful), N_COLUMNS):
        columns = doubtful[start : start + N_COLUMNS]
        varying[columns] = _is_finer_than_float32(bold[np.ix_(fitted, columns)])
    return mean, sd, voxels & varying


def zscored(bold: np.ndarray, mean: np.ndarray, sd: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(n_trs, n_voxels) in SDs, float32; 0 where a TR was not measured or an SD is 0."""
    sd = np.where(sd > 0, sd, np.inf)
    return np.where(measured[:, None], (bold - mean) / sd, 0).astype(np.float32)


def _is_finer_than_float32(values: np.ndarray) -> np.ndarray:
    """Which columns of (n_trs, n_features) hold values that differ by less than in float32."""
    if values.dtype.kind in "iu":  # never rounded
        return np.ones(values.shape[1], bool)
    largest = np.abs(values).max(0).astype(np.float64)
    steps = np.diff(np.sort(values, axis=0), axis=0)
    return ((steps > EXACT * largest) & (steps < np.finfo(np.float32).eps / 4 * largest)).any(0)


def _varying_blocks(
    features: np.ndarray, train: np.ndarray, n_columns: int = N_COLUMNS
) -> Iterator[np.ndarray]:
    """Which features vary, bool, in blocks of columns.

    All of a movie's pixels do not fit in memory.
    """
    flat = features.reshape(len(features), -1)
    for start in range(0, flat.shape[1], n_columns):
        block = flat[train, start : start + n_columns]
        low = block.min(0).astype(np.float64)
        high = block.max(0).astype(np.float64)
        largest = np.maximum(np.abs(low), np.abs(high))
        varying = high - low > CONSTANT * largest
        doubtful = np.flatnonzero(~varying & (high - low > EXACT * largest))
        varying[doubtful] = _is_finer_than_float32(block[:, doubtful])
        yield varying
        release(features)
