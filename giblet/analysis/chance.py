"""Chance: what a score would be if the brain had not followed the film."""

from collections.abc import Callable, Iterator

import numpy as np
from scipy import fft
from scipy.stats import false_discovery_control

N_PERMUTE = 2000  # null draws
PRECISION = float(np.finfo(np.float32).eps)  # of the float32 in which models and data are held
ROUNDING = 16 * PRECISION  # sums in float32 that should be equal differ by less, as a share of them


def window_correlations(series: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Correlate a block with every window of its length in a longer series, column by column.

    Parameters
    ----------
    series : (n_trs, n_voxels)
    block : (n_block, n_voxels), n_block <= n_trs

    Returns
    -------
    (n_trs - n_block + 1, n_voxels) float64
        Row s is the Pearson correlation of `block` with `series[s : s + n_block]`; NaN where
        either does not vary, or by rounding only.
    """
    n_trs = len(series)
    n_block = len(block)
    least_series = n_block * _rounding_deviation(series) ** 2
    block_varies = varying_voxels(block)
    series = np.asarray(series, np.float64) - np.mean(series, 0, dtype=np.float64)
    block = np.asarray(block, np.float64) - np.mean(block, 0, dtype=np.float64)
    n_fft = fft.next_fast_len(n_trs, real=True)
    spectrum = fft.rfft(series, n_fft, axis=0) * fft.rfft(block, n_fft, axis=0).conj()
    products = fft.irfft(spectrum, n_fft, axis=0)[: n_trs - n_block + 1]
    sums, squares = (_moving_sum(power, n_block) for power in (series, series**2))
    variance = squares - sums**2 / n_block
    least = np.maximum(np.finfo(np.float64).eps * n_trs * (series**2).sum(0), least_series)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = products / np.sqrt(np.maximum(variance, 0) * (block**2).sum(0))
    return np.where((variance > least) & block_varies, r, np.nan)


def _moving_sum(values: np.ndarray, length: int) -> np.ndarray:
    total = np.cumsum(np.pad(values, ((1, 0), (0, 0))), axis=0)
    return total[length:] - total[:-length]


def _rounding_deviation(series: np.ndarray) -> np.ndarray:
    """Largest SD that rounding alone gives the columns of (n_trs, n_voxels): (n_voxels,)."""
    series = np.asarray(series)
    kind = series.dtype if np.issubdtype(series.dtype, np.floating) else np.float64
    return 4 * min(np.finfo(kind).eps, PRECISION) * np.abs(series).max(0).astype(np.float64)


def varying_voxels(series: np.ndarray) -> np.ndarray:
    """Which columns of (n_trs, n_voxels) vary by more than rounding: (n_voxels,) bool."""
    with np.errstate(invalid="ignore"):
        return np.std(series, 0, dtype=np.float64) > _rounding_deviation(series)


def window_null(
    fmri_pred: np.ndarray,
    fmri: np.ndarray,
    run: np.ndarray,
    held_out: np.ndarray,
    exclusion: int,
    n_permute: int = N_PERMUTE,
    random_state: int | np.random.Generator = 0,
    reduce: Callable[[np.ndarray], np.ndarray] = lambda r: r,
) -> tuple[np.ndarray, np.ndarray]:
    """Held-out correlation, and the same against the prediction of other times.

    In every run the held-out block of BOLD is correlated with the prediction of its own time and
    with all windows of the run's prediction at least `exclusion` TRs away. Both keep their
    autocorrelation, as shuffled or circularly shifted TRs do not. A draw takes one window from each
    run, independently. A block of more than half its run leaves no room for other windows: it is
    taken in four pieces, each with its own.

    Parameters
    ----------
    fmri_pred, fmri : (n_trs, n_voxels)
        Prediction and measurement of whole runs.
    run : (n_trs,)
        Run of each TR.
    held_out : (n_trs,) bool
        One contiguous block in each run.
    exclusion : int
        Smallest distance, in TRs, of a null window from the block: window + HRF, as the gap between
        splits.
    n_permute : int
        Null draws.
    reduce : callable
        Maps (..., n_voxels) correlations to (..., n_scores), for example `Regions.mean`; must be
        linear.

    Returns
    -------
    observed : (n_scores,)
        Correlation within each block, averaged over blocks by their TRs.
    null : (n_permute, n_scores)
        The same of each draw.

    Raises
    ------
    ValueError
        If no TR is held out, or a run is too short to hold another window.
    """
    if not np.any(held_out):
        raise ValueError(f"none of {len(run)} TRs is held out: there is nothing to score.")
    rng = np.random.default_rng(random_state)
    observed = np.zeros(())
    null = np.zeros(())
    for index, rows, block in held_out_blocks(run, held_out):
        scores = reduce(window_correlations(fmri_pred[rows], fmri[rows][block]))
        others = np.flatnonzero(np.abs(np.arange(len(scores)) - block[0]) >= exclusion)
        if len(others) == 0:
            raise ValueError(
                f"run {index} has {len(rows)} TRs, {len(block)} of them held out: no other window "
                f"lies {exclusion} TRs away; hold out less or use longer runs."
            )
        weight = len(block) / held_out.sum()
        observed = observed + weight * scores[block[0]]
        null = null + weight * scores[rng.choice(others, n_permute)]
    return observed, null


def held_out_blocks(
    run: np.ndarray, held_out: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Index of the run, its rows, and which of these are held out, for each block.

    See `window_null`.
    """
    for index in np.unique(run[held_out]):
        rows = np.flatnonzero(run == index)
        block = np.flatnonzero(held_out[rows])
        for piece in np.array_split(block, 4 if len(block) > len(rows) / 2 else 1):
            yield index, rows, piece


def p_values(
    observed: np.ndarray | float,
    null: np.ndarray,
    rounding: np.ndarray | float = 0.0,
) -> np.ndarray | float:
    """One-sided p of each score: (b + 1) / (n_permute + 1), b the draws at least as large.

    A tie counts against the finding, and so does a tie but for rounding: a draw that falls short of
    the score by at most `ROUNDING` (16 float32 epsilons, 1.9e-6) of the largest absolute value of
    the score and its draws. Where these are all 0 they tie, and p is 1.

    Parameters
    ----------
    observed : (n_scores,) or scalar
        In any unit; larger is more of a finding.
    null : (n_permute, n_scores) or (n_permute,)
        The same of each draw.
    rounding : (n_scores,) or scalar
        Error to allow for besides, in the unit of the scores: `ROUNDING` for correlations, whose
        error does not shrink with them, or that of the scores that a cost is the difference of.

    Returns
    -------
    (n_scores,) float64 or scalar
        Never below 1 / (n_permute + 1). NaN where the score or any of its draws is not a finite
        number.

    Raises
    ------
    ValueError
        If `null` does not hold draws of as many scores as `observed`.
    """
    scores, draws = _scores_and_draws(observed, null)
    known = np.isfinite(scores) & np.isfinite(draws).all(0)
    with np.errstate(invalid="ignore"):
        as_large = draws >= scores - _tolerance(scores, draws, rounding)
    return np.where(known, (as_large.sum(0) + 1) / (len(draws) + 1), np.nan)[()]


def z_scores(
    observed: np.ndarray | float,
    null: np.ndarray,
    rounding: np.ndarray | float = 0.0,
) -> np.ndarray | float:
    """Distance of each score from the mean of its null, in SDs of the null.

    Parameters
    ----------
    observed, null, rounding : as in `p_values`

    Returns
    -------
    (n_scores,) float64 or scalar
        NaN where `p_values` is, and where the null varies by rounding only.

    Raises
    ------
    ValueError
        As `p_values`.
    """
    scores, draws = _scores_and_draws(observed, null)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = draws.std(0)
        z = (scores - draws.mean(0)) / spread
        return np.where(spread > _tolerance(scores, draws, rounding), z, np.nan)[()]


def _scores_and_draws(observed: np.ndarray | float, null: np.ndarray) -> tuple:
    observed = np.asarray(observed, np.float64)
    null = np.asarray(null, np.float64)
    if observed.shape not in ((), null.shape[1:]):
        raise ValueError(
            f"null has shape {null.shape}, expected draws of the shape of observed, "
            f"{observed.shape}, one after the other."
        )
    return observed, null


def _tolerance(observed: np.ndarray, null: np.ndarray, rounding: np.ndarray | float) -> np.ndarray:
    """By how much a score, (n_scores,), and its draws may differ by rounding, see `p_values`."""
    largest = np.maximum(np.abs(observed), np.abs(null).max(0, initial=0))
    return ROUNDING * largest + rounding


def voxelwise_null(
    fmri_pred: np.ndarray,
    fmri: np.ndarray,
    run: np.ndarray,
    held_out: np.ndarray,
    exclusion: int,
    n_permute: int = N_PERMUTE,
    random_state: int = 0,
    block_voxels: int = 2048,
) -> tuple[np.ndarray, np.ndarray]:
    """Held-out r of every voxel and its p in `window_null`.

    Blocks of voxels share the draws.

    Parameters
    ----------
    As in `window_null`.

    Returns
    -------
    r, p : (n_voxels,) float64
        r is NaN where a series does not vary in a held-out block, p also where it does not in a
        window of the null.
    """
    r = np.empty(fmri.shape[1])
    p = np.empty(fmri.shape[1])
    for start in range(0, len(r), block_voxels):
        part = slice(start, start + block_voxels)
        settings = (run, held_out, exclusion, n_permute, random_state)
        r[part], null = window_null(fmri_pred[:, part], fmri[:, part], *settings)
        p[part] = p_values(r[part], null, rounding=ROUNDING)
    return r, p


def fdr(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg q of each p, (n,); NaN stays NaN.

    Rejecting q <= .05 leaves 5 % false among the rejected.
    """
    p = np.asarray(p, np.float64)
    q = np.full(len(p), np.nan)
    finite = np.isfinite(p)
    if finite.any():
        q[finite] = false_discovery_control(p[finite])
    return q
