"""How many TRs BOLD lags the film, from the data."""

from collections.abc import Sequence

import numpy as np


def lag_curve(
    stimulus: np.ndarray, fmri: np.ndarray, run: np.ndarray, lags: Sequence[int]
) -> np.ndarray:
    """Share of each voxel's variance that a few stimulus features explain, by lag.

    BOLD is read `lag` TRs after the stimulus.

    Least squares within the data, adjusted for the number of features, so that chance is 0;
    stimulus and BOLD are centred within runs and no pair of TRs crosses a run boundary.

    Parameters
    ----------
    stimulus : (n_trs, n_features)
        Few features, such as brightness or loudness: many more TRs than features.
    fmri : (n_trs, n_voxels)
    run : (n_trs,)
    lags : sequence of int
        Negative lags read BOLD before the stimulus.

    Returns
    -------
    (n_lags, n_voxels) float64, NaN for voxels that do not vary
    """
    return np.stack([_adjusted_r2(*_pairs(stimulus, fmri, run, lag)) for lag in lags])


def _pairs(
    stimulus: np.ndarray, fmri: np.ndarray, run: np.ndarray, lag: int
) -> tuple[np.ndarray, np.ndarray]:
    first = max(0, -lag)
    second = max(0, lag)
    pairs = []
    for index in np.unique(run):
        x, y = (np.asarray(array[run == index], np.float64) for array in (stimulus, fmri))
        n_trs = len(x) - abs(lag)
        x = x[first : first + n_trs]
        y = y[second : second + n_trs]
        pairs.append((x - x.mean(0), y - y.mean(0)))
    x, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return x, y


def _adjusted_r2(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    basis, values, _ = np.linalg.svd(x, full_matrices=False)
    basis = basis[:, values > 1e-8 * values[0]]
    n_trs, rank = basis.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.square(basis.T @ y).sum(0) / np.square(y).sum(0)
    return 1 - (1 - r2) * (n_trs - 1) / (n_trs - 1 - rank)
