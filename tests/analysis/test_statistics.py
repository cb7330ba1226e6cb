import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import pearsonr

from giblet.analysis.statistics import p_values, window_correlations, window_null


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
