"""How sure a score is: what it would be over other film, from resampled blocks of TRs."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import t as student_t

from giblet.analysis.chance import ROUNDING, varying_voxels


def bootstrap_correlations(
    predictions: Sequence[np.ndarray],
    fmri: np.ndarray,
    run: np.ndarray,
    block_trs: int,
    n_boot: int = 1000,
    random_state: int | np.random.Generator = 0,
    reduce: Callable[[np.ndarray], np.ndarray] = lambda r: r,
) -> np.ndarray:
    """Correlations of several predictions with the same fMRI, over resampled film.

    Blocks of neighbouring TRs are drawn with replacement within each run, whose end is followed by
    its start (Politis & Romano 1992, A circular block-resampling procedure for stationary data), so
    that what is drawn keeps its autocorrelation and every TR is drawn as often. All predictions and
    voxels see the same draws: differences are paired.

    Parameters
    ----------
    predictions : sequence of (n_trs, n_voxels)
    fmri : (n_trs, n_voxels)
    run : (n_trs,)
    block_trs : int
        Length of a block: several times the autocorrelation of BOLD, a small share of the run.
    reduce : callable
        As in `window_null`.

    Returns
    -------
    (n_predictions, n_boot, n_scores) float64
        Pearson r within each run, averaged over runs by their number of TRs; NaN where a series
        does not vary in what is drawn, or by rounding only.

    Raises
    ------
    ValueError
        If `block_trs` is longer than a run.
    """
    rng = np.random.default_rng(random_state)
    r = np.zeros(())
    for index in np.unique(run):
        rows = np.flatnonzero(run == index)
        counts = _block_counts(len(rows), block_trs, n_boot, rng)
        y = _standardised(fmri[rows])
        scores = [
            _resampled_correlation(counts, _standardised(x[rows]), y, reduce) for x in predictions
        ]
        r = r + len(rows) / len(run) * np.stack(scores)
    return r


def bootstrap_means(
    values: np.ndarray, run: np.ndarray, block_trs: int, n_boot: int = 1000, random_state: int = 0
) -> np.ndarray:
    """Means of (n_trs,) values over film resampled as in `bootstrap_correlations`: (n_boot,)."""
    rng = np.random.default_rng(random_state)
    sums = np.zeros(n_boot)
    values = np.asarray(values, np.float64)
    for index in np.unique(run):
        own = values[run == index]
        sums += _block_counts(len(own), block_trs, n_boot, rng) @ own
    return sums / len(run)


def default_block_trs(run: np.ndarray) -> int:
    """Length of bootstrap blocks: 20 TRs, or a third of the shortest run if that is less.

    20 TRs are 30 s at a TR of 1.5 s.
    """
    return int(max(1, min(20, np.unique(run, return_counts=True)[1].min() // 3)))


def _block_counts(n_trs: int, block_trs: int, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    """How often each TR is in each draw of blocks: (n_boot, n_trs)."""
    if not 0 < block_trs <= n_trs:
        raise ValueError(f"block_trs is {block_trs}, expected 1 to the {n_trs} TRs of a run.")
    n_blocks = -(-n_trs // block_trs)
    starts = rng.integers(0, n_trs, (n_boot, n_blocks, 1))
    drawn = (starts + np.arange(block_trs)).reshape(n_boot, -1)[:, :n_trs] % n_trs
    return np.stack([np.bincount(row, minlength=n_trs) for row in drawn]).astype(np.float32)


def _standardised(series: np.ndarray) -> np.ndarray:
    varies = varying_voxels(series)
    series = np.asarray(series, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        standard = (series - series.mean(0)) / series.std(0)
    return np.where(varies, standard, np.nan).astype(np.float32)


def _resampled_correlation(
    counts: np.ndarray, x: np.ndarray, y: np.ndarray, reduce: Callable
) -> np.ndarray:
    """Reduced correlation of every draw: (n_boot, n_scores).

    64 draws at a time hold few voxels in memory.
    """
    powers = (x, y, x * y, x * x, y * y)
    scores = []
    for start in range(0, len(counts), 64):
        share = counts[start : start + 64] / np.float32(len(x))
        mean_x, mean_y, xy, xx, yy = (share @ power for power in powers)
        variance_x = xx - mean_x**2
        variance_y = yy - mean_y**2
        vary = (variance_x > ROUNDING * xx) & (variance_y > ROUNDING * yy)
        with np.errstate(divide="ignore", invalid="ignore"):
            r = (xy - mean_x * mean_y) / np.sqrt(variance_x * variance_y)
        scores.append(np.asarray(reduce(np.where(vary, r, np.float32(np.nan))), np.float64))
    return np.concatenate(scores)


def confidence_interval(
    observed: np.ndarray, draws: np.ndarray, n_blocks: float, level: float = 0.95
) -> np.ndarray:
    """Interval of a score from its bootstrap draws.

    (n_scores,) and (n_boot, n_scores) give (2, n_scores).

    The score -/+ its bootstrap standard error, times the quantile of Student's t for `n_blocks` - 1
    degrees of freedom: the percentiles of the draws are too narrow where blocks are few (Hesterberg
    2015, Am. Stat. 69:371-386). `n_blocks` is the number of blocks that the data hold, n_trs /
    block_trs. Over 184 TRs in blocks of 20, 95 % intervals held the true r in 94 % of simulations
    with an autocorrelation of .5, and in 89 % with .9. NaN where the score or a draw is not a
    finite number, and of fewer than two draws.

    Raises
    ------
    ValueError
        If the data hold fewer than 3 blocks.
    """
    half = student_t.ppf((1 + level) / 2, n_blocks - 1) * _standard_error(draws, n_blocks)
    observed = np.where(np.isfinite(observed), observed, np.nan)
    return np.stack([observed - half, observed + half])


def paired_p_values(
    difference: np.ndarray, draws: np.ndarray, n_blocks: float, rounding: float = ROUNDING
) -> np.ndarray:
    """Two-sided p that the difference of two models is 0, from its bootstrap draws.

    Parameters
    ----------
    difference : (n_scores,) or scalar
        Of the scores of the two models.
    draws : (n_boot, n_scores) or (n_boot,)
        The same over resampled film, paired.
    n_blocks : float
        As in `confidence_interval`.
    rounding : float
        Difference that equal models can have; by default that of scores up to 1, such as r, in
        float32.

    Returns
    -------
    (n_scores,) float64 or scalar
        1 where the difference is 0 but for rounding. NaN where it or a draw is not a finite number,
        of fewer than two draws, and where a difference has draws that vary by rounding only: their
        SD is no standard error.

    Raises
    ------
    ValueError
        If the data hold fewer than 3 blocks.
    """
    difference = np.abs(np.asarray(difference, np.float64))
    error = _standard_error(draws, n_blocks)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * student_t.sf(difference / error, n_blocks - 1)
    p = np.where(difference <= rounding, 1.0, np.where(error > rounding, p, np.nan))
    return np.where(np.isfinite(difference) & np.isfinite(error), p, np.nan)[()]


def _standard_error(draws: np.ndarray, n_blocks: float) -> np.ndarray:
    if n_blocks < 3:
        raise ValueError(
            f"the data hold {n_blocks:.1f} blocks, expected 3 or more: take shorter ones, see "
            "block_trs."
        )
    draws = np.asarray(draws, np.float64)
    if len(draws) < 2:
        return np.full(draws.shape[1:], np.nan)
    with np.errstate(invalid="ignore"):
        return draws.std(0) * np.sqrt(n_blocks / (n_blocks - 1))
