"""Chance: what a score would be if the brain had not followed the film."""

from collections.abc import Callable

import numpy as np
from scipy import fft


def window_correlations(series: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Correlate a block with every window of its length in a longer series, column by column.

    Parameters
    ----------
    series : (n_trs, n_voxels)
    block : (n_block, n_voxels), n_block <= n_trs

    Returns
    -------
    (n_trs - n_block + 1, n_voxels) float64
        Row s is the Pearson correlation of `block` with `series[s : s + n_block]`; NaN where either does not vary.
    """
    n_trs, n_block = len(series), len(block)
    series = np.asarray(series, np.float64) - np.mean(series, 0, dtype=np.float64)
    block = np.asarray(block, np.float64) - np.mean(block, 0, dtype=np.float64)
    n_fft = fft.next_fast_len(n_trs, real=True)
    spectrum = fft.rfft(series, n_fft, axis=0) * fft.rfft(block, n_fft, axis=0).conj()
    products = fft.irfft(spectrum, n_fft, axis=0)[: n_trs - n_block + 1]
    sums, squares = (_moving_sum(power, n_block) for power in (series, series**2))
    variance = (squares - sums**2 / n_block) * (block**2).sum(0)
    scale = np.finfo(np.float64).eps * n_trs * (series**2).sum(0) * (block**2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > scale, products / np.sqrt(np.maximum(variance, 0)), np.nan)


def _moving_sum(values: np.ndarray, length: int) -> np.ndarray:
    total = np.cumsum(np.pad(values, ((1, 0), (0, 0))), axis=0)
    return total[length:] - total[:-length]


def window_null(
    fmri_pred: np.ndarray,
    fmri: np.ndarray,
    run: np.ndarray,
    held_out: np.ndarray,
    exclusion: int,
    n_permute: int = 2000,
    random_state: int | np.random.Generator = 0,
    reduce: Callable[[np.ndarray], np.ndarray] = lambda r: r,
) -> tuple[np.ndarray, np.ndarray]:
    """Held-out correlation, and the same against the prediction of other times.

    In every run the held-out block of BOLD is correlated with the prediction of its own time and with all
    windows of the run's prediction at least `exclusion` TRs away. Both keep their autocorrelation, as
    shuffled or circularly shifted TRs do not. A draw takes one window from each run, independently.

    Parameters
    ----------
    fmri_pred, fmri : (n_trs, n_voxels)
        Prediction and measurement of whole runs.
    run : (n_trs,)
        Run of each TR.
    held_out : (n_trs,) bool
        One contiguous block in each run.
    exclusion : int
        Smallest distance, in TRs, of a null window from the block: window + HRF, as the gap between splits.
    n_permute : int
        Null draws.
    reduce : callable
        Maps (..., n_voxels) correlations to (..., n_scores), for example `Regions.mean`; must be linear.

    Returns
    -------
    observed : (n_scores,)
        Correlation within each run, averaged over runs by their held-out TRs.
    null : (n_permute, n_scores)
        The same of each draw.

    Raises
    ------
    ValueError
        If a run is too short to hold another window.
    """
    rng = np.random.default_rng(random_state)
    observed, null = 0.0, 0.0
    for index in np.unique(run):
        rows = np.flatnonzero(run == index)
        block = np.flatnonzero(held_out[rows])
        scores = reduce(window_correlations(fmri_pred[rows], fmri[rows][block]))
        others = np.flatnonzero(np.abs(np.arange(len(scores)) - block[0]) >= exclusion)
        if len(others) == 0:
            raise ValueError(
                f"run {index} has {len(rows)} TRs, {len(block)} of them held out: no other window lies "
                f"{exclusion} TRs away; hold out less or use longer runs."
            )
        weight = len(block) / held_out.sum()
        observed = observed + weight * scores[block[0]]
        null = null + weight * scores[rng.choice(others, n_permute)]
    return observed, null


def p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """One-sided p = (b + 1) / (n_permute + 1), b the draws at least as large; never below 1 / (n_permute + 1)."""
    return ((null >= observed).sum(0) + 1) / (len(null) + 1)
