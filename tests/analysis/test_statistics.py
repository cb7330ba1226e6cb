import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import pearsonr

from giblet.analysis.statistics import (
    bootstrap_correlations,
    bootstrap_means,
    confidence_interval,
    fdr,
    p_values,
    paired_p_values,
    usual_block_trs,
    voxelwise_null,
    window_correlations,
    window_null,
)


def autocorrelated(rng, n_trs: int, n_series: int, coefficient: float) -> np.ndarray:
    return lfilter([1], [1, -coefficient], rng.standard_normal((n_trs + 200, n_series)), axis=0)[200:]


@pytest.mark.parametrize("offset", [0, 1e4])
def test_every_window_against_scipy(rng, offset):
    series, block = rng.standard_normal((90, 3)).cumsum(0) + offset, rng.standard_normal((31, 3)) - offset
    r = window_correlations(series, block)
    expected = [[pearsonr(series[s : s + 31, v], block[:, v])[0] for v in range(3)] for s in range(60)]
    assert r.shape == (60, 3)
    assert np.allclose(r, expected, atol=1e-8)


def test_windows_that_do_not_vary():
    series = np.zeros((30, 2))
    series[20:, 0] = np.arange(10)
    r = window_correlations(series, np.random.default_rng(0).standard_normal((8, 2)))
    assert np.all(np.isnan(r[:13, 0]))
    assert np.all(np.isfinite(r[14:, 0]))
    assert np.all(np.isnan(r[:, 1]))


def two_runs(rng, n_voxels: int = 4):
    run = np.repeat([0, 1], [70, 90])
    held_out = np.zeros(160, bool)
    held_out[50:70] = held_out[130:160] = True
    fmri_pred, fmri = rng.standard_normal((2, 160, n_voxels))
    return fmri_pred, fmri, run, held_out


def test_observed_is_the_mean_over_runs(rng):
    fmri_pred, fmri, run, held_out = two_runs(rng)
    observed, _ = window_null(fmri_pred, fmri, run, held_out, exclusion=10, n_permute=1)
    for voxel in range(4):
        one, two = (pearsonr(fmri_pred[rows, voxel], fmri[rows, voxel])[0] for rows in (slice(50, 70), slice(130, 160)))
        assert observed[voxel] == pytest.approx((20 * one + 30 * two) / 50)


def test_null_is_made_of_distant_windows_of_every_run(rng):
    fmri_pred, fmri, run, held_out = two_runs(rng, n_voxels=1)
    _, null = window_null(fmri_pred, fmri, run, held_out, exclusion=15, n_permute=20_000)
    one = [pearsonr(fmri_pred[s : s + 20, 0], fmri[50:70, 0])[0] for s in range(0, 36)]
    two = [pearsonr(fmri_pred[s : s + 30, 0], fmri[130:160, 0])[0] for s in range(70, 116)]
    possible = np.unique(np.round(np.add.outer(20 * np.array(one), 30 * np.array(two)) / 50, 9))
    assert set(np.round(null[:, 0], 9)) <= set(possible)
    assert len(np.unique(np.round(null[:, 0], 9))) > 0.95 * len(possible)


def test_the_same_window_for_all_voxels(rng):
    """A draw keeps the space of the brain together, so that the mean of a network has its own null."""
    fmri_pred, fmri, run, held_out = two_runs(rng)
    same = np.repeat(fmri_pred[:, :1], 4, axis=1), np.repeat(fmri[:, :1], 4, axis=1)
    _, null = window_null(*same, run, held_out, exclusion=10, n_permute=50)
    assert np.allclose(null, null[:, :1])
    _, voxels = window_null(fmri_pred, fmri, run, held_out, 10, 50, random_state=3)
    _, mean = window_null(fmri_pred, fmri, run, held_out, 10, 50, 3, lambda r: r.mean(-1, keepdims=True))
    assert np.allclose(mean[:, 0], voxels.mean(1))


def test_seed(rng):
    data = two_runs(rng)
    first, again, other = (window_null(*data, 10, 20, random_state=seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_whole_run_is_scored_in_pieces(rng):
    """Each quarter against the windows of the same run that are far from it."""
    fmri_pred, fmri = rng.standard_normal((2, 80, 1))
    run, held_out = np.zeros(80, int), np.ones(80, bool)
    observed, null = window_null(fmri_pred, fmri, run, held_out, exclusion=25, n_permute=3000)
    pieces = [fmri[start : start + 20, 0] for start in range(0, 80, 20)]
    own = [pearsonr(fmri_pred[start : start + 20, 0], pieces[start // 20])[0] for start in range(0, 80, 20)]
    assert observed[0] == pytest.approx(np.mean(own))
    others = [
        [pearsonr(fmri_pred[s : s + 20, 0], piece)[0] for s in range(61) if abs(s - 20 * index) >= 25]
        for index, piece in enumerate(pieces)
    ]
    assert null.mean() == pytest.approx(np.mean([np.mean(r) for r in others]), abs=0.01)
    assert null.std() == pytest.approx(np.sqrt(np.sum([np.var(r) for r in others])) / 4, rel=0.05)


def test_run_without_another_window(rng):
    with pytest.raises(ValueError, match="run 0 has 70 TRs, 20 of them held out: no other window lies 60 TRs away"):
        window_null(*two_runs(rng), exclusion=60)


@pytest.mark.parametrize("coefficient", [0.5, 0.9])
def test_nominal_rate_on_autocorrelated_noise(coefficient):
    """Two runs with a held-out block of 92 TRs each, nothing in common: 5 +/- 2 % at p < .05."""
    rng, n_series = np.random.default_rng(1), 4000
    fmri_pred, fmri = autocorrelated(rng, 1976, 2 * n_series, coefficient).reshape(1976, 2, n_series).swapaxes(0, 1)
    run = np.repeat([0, 1], [946, 1030])
    held_out = np.zeros(1976, bool)
    held_out[946 - 92 : 946] = held_out[-92:] = True
    observed, null = window_null(fmri_pred, fmri, run, held_out, exclusion=17, n_permute=400)
    rate = (p_values(observed, null) < 0.05).mean()
    assert 0.03 <= rate <= 0.07


def test_a_planted_response_is_found(rng):
    fmri_pred, fmri, run, held_out = two_runs(rng)
    fmri[:, 0] += fmri_pred[:, 0]
    p = p_values(*window_null(fmri_pred, fmri, run, held_out, 10, 500))
    assert p[0] == 1 / 501


def test_p_values_by_hand():
    null = np.array([[0.1, 0.0], [0.2, 0.5], [0.3, 0.6], [0.4, 0.7]])
    assert p_values(np.array([0.3, 0.9]), null) == pytest.approx([3 / 5, 1 / 5])


def test_fdr_against_its_definition(rng):
    """q of the i-th smallest of n is the smallest of p_j n / j over j >= i."""
    p = np.append(rng.random(40) ** 3, np.nan)
    order = np.argsort(p[:40])
    expected = np.empty(40)
    expected[order] = [min(1, (p[order][i:] * 40 / np.arange(i + 1, 41)).min()) for i in range(40)]
    assert np.allclose(fdr(p)[:40], expected)
    assert np.isnan(fdr(p)[40])


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
    both = bootstrap_correlations([fmri_pred], fmri, run, 10, n_boot=5, reduce=lambda r: r.mean(-1, keepdims=True))
    generator = np.random.default_rng(0)
    parts = [
        bootstrap_correlations([fmri_pred[run == n]], fmri[run == n], run[run == n], 10, 5, generator) for n in (0, 1)
    ]
    assert both.shape == (1, 5, 1)
    assert np.allclose(both[..., 0], (0.4 * parts[0] + 0.6 * parts[1]).mean(-1), atol=1e-6)


def pearson(x, y) -> np.ndarray:
    return np.array([pearsonr(*columns)[0] for columns in zip(x.T, y.T, strict=True)])


@pytest.mark.parametrize(("coefficient", "least"), [(0.5, 0.91), (0.9, 0.85)])
def test_interval_covers_the_true_correlation(rng, coefficient, least):
    """Many autocorrelated pairs of known r, 184 TRs: how many 95 % intervals hold it, as the docstring says."""
    fmri = autocorrelated(rng, 184, 400, coefficient)
    fmri_pred = fmri + autocorrelated(rng, 184, 400, coefficient)
    draws = bootstrap_correlations([fmri_pred], fmri, np.zeros(184, int), block_trs=20, n_boot=500)[0]
    low, high = confidence_interval(pearson(fmri_pred, fmri), draws, n_blocks=184 / 20)
    covered = np.mean((low < np.sqrt(0.5)) & (np.sqrt(0.5) < high))
    assert least < covered < 0.98


@pytest.mark.parametrize(("coefficient", "block_trs"), [(0.5, 20), (0.9, 30)])
def test_paired_test_of_two_models(rng, coefficient, block_trs):
    """Equal models differ at the nominal rate, 5 +/- 2 %, in blocks that outlast the noise; a better one is found."""
    n_series = 1000
    fmri = autocorrelated(rng, 184, n_series, coefficient)
    one, two = (fmri + 2 * autocorrelated(rng, 184, n_series, coefficient) for _ in range(2))
    better = fmri + 0.5 * autocorrelated(rng, 184, n_series, coefficient)
    draws = bootstrap_correlations([one, two, better], fmri, np.zeros(184, int), block_trs, n_boot=300)
    r = [pearson(x, fmri) for x in (one, two, better)]
    same, found = (paired_p_values(r[i] - r[j], draws[i] - draws[j], 184 / block_trs) for i, j in ((0, 1), (2, 1)))
    assert 0.03 <= np.mean(same < 0.05) <= 0.07
    assert np.mean(found < 0.05) > (0.95 if coefficient < 0.9 else 0.7)


def test_interval_and_p_agree(rng):
    """p is below .05 exactly where the 95 % interval leaves out 0."""
    observed, draws = rng.standard_normal(200), rng.standard_normal((100, 200))
    low, high = confidence_interval(observed, draws, n_blocks=8)
    assert np.array_equal((low > 0) | (high < 0), paired_p_values(observed, draws, 8) < 0.05)
    with pytest.raises(ValueError, match=r"hold 2\.5 blocks, expected 3 or more"):
        confidence_interval(observed, draws, n_blocks=2.5)


def test_bootstrap_of_means(rng):
    """Its standard error is that of the mean where TRs are independent; a run is resampled by itself."""
    values, run = rng.standard_normal(400), np.repeat([0, 1], 200)
    draws = bootstrap_means(values, run, block_trs=4, n_boot=4000)
    assert draws.std() == pytest.approx(values.std() / np.sqrt(400), rel=0.2)
    assert draws.mean() == pytest.approx(values.mean(), abs=0.005)
    apart = bootstrap_means(np.repeat([0.0, 1.0], 200), run, block_trs=4, n_boot=50)
    assert np.allclose(apart, 0.5)


def test_usual_blocks():
    assert usual_block_trs(np.zeros(500)) == 20
    assert usual_block_trs(np.repeat([0, 1], [51, 30])) == 10
    assert usual_block_trs(np.zeros(2)) == 1


@pytest.mark.parametrize("block_trs", [0, 61])
def test_block_longer_than_a_run(rng, block_trs):
    with pytest.raises(ValueError, match=f"block_trs is {block_trs}, expected 1 to the 60 TRs"):
        bootstrap_correlations([np.ones((60, 1))], np.ones((60, 1)), np.zeros(60, int), block_trs)


def test_voxels_in_blocks_are_voxels_at_once(rng):
    fmri_pred, fmri, run, held_out = two_runs(rng, n_voxels=7)
    fmri_pred[:, 2] = 1.0
    r, p = voxelwise_null(fmri_pred, fmri, run, held_out, 10, n_permute=300, block_voxels=3)
    observed, null = window_null(fmri_pred, fmri, run, held_out, 10, n_permute=300)
    varies = np.arange(7) != 2
    assert np.allclose(r[varies], observed[varies])
    assert np.allclose(p[varies], p_values(observed, null)[varies])
    assert np.isnan(r[2])
    assert np.isnan(p[2])
