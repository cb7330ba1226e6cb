import numpy as np
import pytest
from scipy.stats import pearsonr
from series import autocorrelated

from giblet.analysis.bootstrap import (
    bootstrap_correlations,
    bootstrap_means,
    confidence_interval,
    default_block_trs,
    paired_p_values,
)
from giblet.regions import Regions


def test_bootstrap_against_explicit_resampling(rng):
    """Every draw is the correlation of series made of whole blocks."""
    fmri, fmri_pred = rng.standard_normal((2, 60, 3))
    run = np.zeros(60, int)
    draws = bootstrap_correlations([fmri_pred, -fmri_pred], fmri, run, block_trs=25, n_boot=70)
    starts = np.random.default_rng(0).integers(0, 60, (70, 3))
    for draw in (0, 1, 69):
        rows = np.concatenate([np.arange(start, start + 25) % 60 for start in starts[draw]])[:60]
        expected = [pearsonr(fmri_pred[rows, voxel], fmri[rows, voxel])[0] for voxel in range(3)]
        assert np.allclose(draws[0, draw], expected, atol=1e-5)
    assert np.allclose(draws[0], -draws[1], atol=1e-6)


def test_bootstrap_reduces_and_averages_runs(rng):
    fmri, fmri_pred = rng.standard_normal((2, 100, 4)).astype(np.float32)
    run = np.repeat([0, 1], [40, 60])
    both = bootstrap_correlations(
        [fmri_pred], fmri, run, 10, n_boot=5, reduce=lambda r: r.mean(-1, keepdims=True)
    )
    generator = np.random.default_rng(0)
    parts = [
        bootstrap_correlations(
            [fmri_pred[run == n]], fmri[run == n], run[run == n], 10, 5, generator
        )
        for n in (0, 1)
    ]
    assert both.shape == (1, 5, 1)
    assert np.allclose(both[..., 0], (0.4 * parts[0] + 0.6 * parts[1]).mean(-1), atol=1e-6)


def test_bootstrap_of_an_empty_region(rng):
    regions = Regions(np.zeros(4, int), ("full", "empty"))
    fmri, fmri_pred = rng.standard_normal((2, 60, 4)).astype(np.float32)
    run = np.zeros(60)
    draws = bootstrap_correlations([fmri_pred], fmri, run, 10, n_boot=20, reduce=regions.mean)
    assert np.isfinite(draws[..., 0]).all()
    assert np.isnan(draws[..., 1]).all()
    low, high = confidence_interval(np.array([0.1, np.nan]), draws[0], 6)
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, True]
    assert np.isnan(paired_p_values(np.array([0.1, np.nan]), draws[0], 6)).tolist() == [False, True]


def test_bootstrap_draws_without_what_varies(rng):
    """Two spikes in 100 TRs: where a draw has none of them, it has no r, and no r is beyond 1."""
    spikes = np.zeros((100, 1))
    fmri = rng.standard_normal((100, 1))
    spikes[[3, 60], 0] = 1, 2
    draws = bootstrap_correlations([spikes], fmri, np.zeros(100), 10, n_boot=300)
    missing = np.isnan(draws).mean()
    assert 0.05 < missing < 0.4
    assert np.nanmax(np.abs(draws)) < 1


def pearson(x, y) -> np.ndarray:
    return np.array([pearsonr(*columns)[0] for columns in zip(x.T, y.T, strict=True)])


@pytest.mark.parametrize(("coefficient", "least"), [(0.5, 0.91), (0.9, 0.85)])
def test_interval_covers_the_true_correlation(rng, coefficient, least):
    """Many autocorrelated pairs of known r, 184 TRs: how many 95 % intervals hold it."""
    fmri = autocorrelated(rng, 184, 400, coefficient)
    fmri_pred = fmri + autocorrelated(rng, 184, 400, coefficient)
    draws = bootstrap_correlations([fmri_pred], fmri, np.zeros(184, int), block_trs=20, n_boot=500)[
        0
    ]
    low, high = confidence_interval(pearson(fmri_pred, fmri), draws, n_blocks=184 / 20)
    covered = np.mean((low < np.sqrt(0.5)) & (np.sqrt(0.5) < high))
    assert least < covered < 0.98


@pytest.mark.parametrize(("coefficient", "block_trs"), [(0.5, 20), (0.9, 30)])
def test_paired_test_of_two_models(rng, coefficient, block_trs):
    """Equal models differ at the nominal rate, 5 +/- 2 %; a better one is found."""
    n_series = 1000
    fmri = autocorrelated(rng, 184, n_series, coefficient)
    one, two = (fmri + 2 * autocorrelated(rng, 184, n_series, coefficient) for _ in range(2))
    better = fmri + 0.5 * autocorrelated(rng, 184, n_series, coefficient)
    draws = bootstrap_correlations(
        [one, two, better], fmri, np.zeros(184, int), block_trs, n_boot=300
    )
    r = [pearson(x, fmri) for x in (one, two, better)]
    same, found = (
        paired_p_values(r[i] - r[j], draws[i] - draws[j], 184 / block_trs)
        for i, j in ((0, 1), (2, 1))
    )
    assert 0.03 <= np.mean(same < 0.05) <= 0.07
    assert np.mean(found < 0.05) > (0.95 if coefficient < 0.9 else 0.7)


def test_interval_and_p_agree(rng):
    """p is below .05 exactly where the 95 % interval leaves out 0."""
    observed = rng.standard_normal(200)
    draws = rng.standard_normal((100, 200))
    low, high = confidence_interval(observed, draws, n_blocks=8)
    assert np.array_equal((low > 0) | (high < 0), paired_p_values(observed, draws, 8) < 0.05)
    with pytest.raises(ValueError, match=r"hold 2\.5 blocks, expected 3 or more"):
        confidence_interval(observed, draws, n_blocks=2.5)


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (2, 0), (0.01, 3), (-1, 0), (1, 1000)])
def test_models_that_predict_the_same_do_not_differ(rng, scale, offset):
    """The same prediction in other units, rounded to float32: the difference is 0 or rounding."""
    fmri, fmri_pred = rng.standard_normal((2, 200, 30)).astype(np.float32)
    other = (np.float32(scale) * fmri_pred + np.float32(offset)).astype(np.float32)
    sign = np.sign(scale)
    draws = bootstrap_correlations([fmri_pred, other], fmri, np.zeros(200), 20, n_boot=100)
    regions = Regions(np.zeros(30, int), ("whole",))
    mean = regions.mean(draws[0] - sign * draws[1])
    difference = regions.mean(pearson(fmri_pred, fmri) - sign * pearson(other, fmri))
    assert paired_p_values(difference, mean, 10) == 1


def test_paired_p_of_nothing(rng):
    draws = rng.normal(0.1, 0.05, (50, 5))
    draws[:, 0] = 0
    draws[:, 1] = 0.1
    draws[3, 2] = np.nan
    difference = np.array([0, 0.1, 0.1, np.inf, 0.1])
    p = paired_p_values(difference, draws, 8)
    assert p[0] == 1
    assert np.isnan(p[1:4]).all()
    assert 0 < p[4] < 0.2
    low, high = confidence_interval(difference, draws, 8)
    assert low[0] == high[0] == 0
    assert np.isnan(low).tolist() == [False, False, True, True, False]
    assert np.isnan(paired_p_values(difference, draws[:1], 8)).all()
    assert np.isnan(confidence_interval(difference, draws[:1], 8)).all()


def test_bootstrap_of_means(rng):
    """Its standard error is that of the mean of independent TRs; runs are resampled apart."""
    values = rng.standard_normal(400)
    run = np.repeat([0, 1], 200)
    draws = bootstrap_means(values, run, block_trs=4, n_boot=4000)
    assert draws.std() == pytest.approx(values.std() / np.sqrt(400), rel=0.2)
    assert draws.mean() == pytest.approx(values.mean(), abs=0.005)
    apart = bootstrap_means(np.repeat([0.0, 1.0], 200), run, block_trs=4, n_boot=50)
    assert np.allclose(apart, 0.5)


def test_usual_blocks():
    assert default_block_trs(np.zeros(500)) == 20
    assert default_block_trs(np.repeat([0, 1], [51, 30])) == 10
    assert default_block_trs(np.zeros(2)) == 1


@pytest.mark.parametrize("block_trs", [0, 61])
def test_block_longer_than_a_run(rng, block_trs):
    with pytest.raises(ValueError, match=f"block_trs is {block_trs}, expected 1 to the 60 TRs"):
        bootstrap_correlations([np.ones((60, 1))], np.ones((60, 1)), np.zeros(60, int), block_trs)
