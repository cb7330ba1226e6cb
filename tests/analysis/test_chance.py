from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from series import autocorrelated

from giblet.analysis.bootstrap import bootstrap_correlations
from giblet.analysis.chance import (
    fdr,
    p_values,
    voxelwise_null,
    window_correlations,
    window_null,
    z_scores,
)


@pytest.mark.parametrize("offset", [0, 1e4])
def test_every_window_against_scipy(rng, offset):
    series = rng.standard_normal((90, 3)).cumsum(0) + offset
    block = rng.standard_normal((31, 3)) - offset
    r = window_correlations(series, block)
    expected = [
        [pearsonr(series[s : s + 31, v], block[:, v])[0] for v in range(3)] for s in range(60)
    ]
    assert r.shape == (60, 3)
    assert np.allclose(r, expected, atol=1e-8)


def test_windows_that_do_not_vary():
    series = np.zeros((30, 2))
    series[20:, 0] = np.arange(10)
    r = window_correlations(series, np.random.default_rng(0).standard_normal((8, 2)))
    assert np.all(np.isnan(r[:13, 0]))
    assert np.all(np.isfinite(r[14:, 0]))
    assert np.all(np.isnan(r[:, 1]))


def nearly_constant(rng, n_trs: int = 160, n_voxels: int = 4) -> np.ndarray:
    """.3 in float32, some of it off by the last bit."""
    value = np.float32(0.3)
    off = np.nextafter(value, np.float32(1))
    return np.where(rng.random((n_trs, n_voxels)) < 0.5, value, off)


@pytest.mark.parametrize("constant", [0.1, 1 / 3, 1e4, None])
def test_what_varies_by_rounding_only_has_no_correlation(rng, constant):
    flat = nearly_constant(rng) if constant is None else np.full((160, 4), constant)
    series = rng.standard_normal((160, 4))
    assert np.isnan(window_correlations(flat, series[:30])).all()
    assert np.isnan(window_correlations(series, flat[:30])).all()
    for pair in ((flat, series), (series, flat)):
        assert np.isnan(bootstrap_correlations(pair[:1], pair[1], np.zeros(160), 20, 10)).all()


def test_small_changes_of_large_values_are_kept(rng):
    """Scanner units: SD of 50 around 10,000, in float32."""
    series = rng.standard_normal((90, 3))
    raw = (10_000 + 50 * series).astype(np.float32)
    r = window_correlations(raw, series[10:40])
    assert np.allclose(r[10], 1, atol=1e-5)
    assert np.isfinite(r).all()


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
        one, two = (
            pearsonr(fmri_pred[rows, voxel], fmri[rows, voxel])[0]
            for rows in (slice(50, 70), slice(130, 160))
        )
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
    """A draw keeps the space of the brain together: the mean of a network has its own null."""
    fmri_pred, fmri, run, held_out = two_runs(rng)
    same = np.repeat(fmri_pred[:, :1], 4, axis=1), np.repeat(fmri[:, :1], 4, axis=1)
    _, null = window_null(*same, run, held_out, exclusion=10, n_permute=50)
    assert np.allclose(null, null[:, :1])
    _, voxels = window_null(fmri_pred, fmri, run, held_out, 10, 50, random_state=3)
    _, mean = window_null(
        fmri_pred, fmri, run, held_out, 10, 50, 3, lambda r: r.mean(-1, keepdims=True)
    )
    assert np.allclose(mean[:, 0], voxels.mean(1))


def test_seed(rng):
    data = two_runs(rng)
    first, again, other = (window_null(*data, 10, 20, random_state=seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_whole_run_is_scored_in_pieces(rng):
    """Each quarter against the windows of the same run that are far from it."""
    fmri_pred, fmri = rng.standard_normal((2, 80, 1))
    run = np.zeros(80, int)
    held_out = np.ones(80, bool)
    observed, null = window_null(fmri_pred, fmri, run, held_out, exclusion=25, n_permute=3000)
    pieces = [fmri[start : start + 20, 0] for start in range(0, 80, 20)]
    own = [
        pearsonr(fmri_pred[start : start + 20, 0], pieces[start // 20])[0]
        for start in range(0, 80, 20)
    ]
    assert observed[0] == pytest.approx(np.mean(own))
    others = [
        [
            pearsonr(fmri_pred[s : s + 20, 0], piece)[0]
            for s in range(61)
            if abs(s - 20 * index) >= 25
        ]
        for index, piece in enumerate(pieces)
    ]
    assert null.mean() == pytest.approx(np.mean([np.mean(r) for r in others]), abs=0.01)
    assert null.std() == pytest.approx(np.sqrt(np.sum([np.var(r) for r in others])) / 4, rel=0.05)


def test_run_without_another_window(rng):
    with pytest.raises(
        ValueError, match="run 0 has 70 TRs, 20 of them held out: no other window lies 60 TRs away"
    ):
        window_null(*two_runs(rng), exclusion=60)


def test_nothing_held_out(rng):
    fmri_pred, fmri, run, held_out = two_runs(rng)
    with pytest.raises(ValueError, match="none of 160 TRs is held out"):
        window_null(fmri_pred, fmri, run, held_out & False, exclusion=10)


@pytest.mark.parametrize("coefficient", [0.5, 0.9])
def test_nominal_rate_on_autocorrelated_noise(coefficient):
    """Two runs with a held-out block of 92 TRs each, nothing in common: 5 +/- 2 % at p < .05."""
    rng = np.random.default_rng(1)
    n_series = 4000
    fmri_pred, fmri = (
        autocorrelated(rng, 1976, 2 * n_series, coefficient)
        .reshape(1976, 2, n_series)
        .swapaxes(0, 1)
    )
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


def test_windows_of_a_prediction_that_repeats_tie(rng):
    """Every fifth window is the held-out one again, but for the rounding of the transform."""
    fmri_pred = np.tile(rng.standard_normal((5, 20)), (20, 1))
    fmri = rng.standard_normal((100, 20))
    held_out = np.arange(100) >= 80
    observed, null = window_null(fmri_pred, fmri, np.zeros(100), held_out, 10, n_permute=500)
    as_large = np.round(null, 9) >= np.round(observed, 9)
    assert as_large.mean(0).min() > 0.1
    assert np.allclose(p_values(observed, null), (as_large.sum(0) + 1) / 501, rtol=1e-12)


def test_p_values_by_hand():
    null = np.array([[0.1, 0.0], [0.2, 0.5], [0.3, 0.6], [0.4, 0.7]])
    assert p_values(np.array([0.3, 0.9]), null) == pytest.approx([3 / 5, 1 / 5])


@given(
    st.lists(st.integers(-1000, 1000), min_size=1, max_size=40),
    st.integers(-1000, 1000),
    st.sampled_from([1, 1000, 10**9, Fraction(1, 100)]),
)
def test_p_against_an_exact_count(draws, score, unit):
    """Whole numbers, so that ties are ties, in units of 1e-9 to 100."""
    scaled = [Fraction(draw) / unit for draw in draws]
    expected = Fraction(1 + sum(draw >= Fraction(score) / unit for draw in scaled), len(draws) + 1)
    p = p_values(float(Fraction(score) / unit), np.array([float(draw) for draw in scaled]))
    assert p == pytest.approx(float(expected), rel=1e-12)


@given(
    st.floats(-(2.0**99), 2.0**99, width=32),
    st.integers(1, 3000),
    st.integers(1, 50),
)
def test_p_of_a_constant_is_1(constant, n_trs, n_permute):
    """A float32 mean ties with the same mean in float64, whatever the constant and its sign."""
    values = np.full(n_trs, constant, np.float32)
    null = np.full(n_permute, values.mean(dtype=np.float64))
    assert p_values(values.mean(), null) == 1
    assert p_values(null[0], null.astype(np.float32)) == 1
    assert np.isnan(z_scores(values.mean(), null))


@pytest.mark.parametrize("size", [1e-6, 0.5, 100])
def test_p_tells_apart_what_rounding_does_not_make(size):
    """A hundred-thousandth of the size is a difference, a ten-millionth is a tie."""
    null = np.full(99, size)
    assert p_values(size * (1 + 1e-5), null) == 1 / 100
    assert p_values(size * (1 + 1e-7), null) == 1
    assert p_values(-size * (1 - 1e-5), -null) == 1 / 100
    assert p_values(size * (1 + 1e-3), null, rounding=size / 500) == 1


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_neither_p_nor_z(rng, hole):
    null = rng.standard_normal((50, 3))
    observed = np.array([0.3, hole, 0.3])
    null[7, 2] = hole
    for helper in (p_values, z_scores):
        found = helper(observed, null)
        assert np.isnan(found).tolist() == [False, True, True]
        assert found[0] == pytest.approx(helper(0.3, null[:, 0]))
        assert np.isscalar(helper(hole, null[:, 0]))
        assert np.isnan(helper(hole, null[:, 0]))


def test_z_by_hand():
    null = np.array([[1.0, 0.1, 0.0], [3.0, 0.1, 0.0], [5.0, 0.1, 0.0]])
    z = z_scores(np.array([7.0, 0.3, 0.3]), null)
    assert z[0] == pytest.approx(4 / np.sqrt(8 / 3))
    assert np.isnan(z[1:]).all()
    assert np.isnan(z_scores(0.3, null[:, 0] * 1e-9, rounding=1e-6))


@pytest.mark.parametrize("helper", [p_values, z_scores])
def test_draws_of_other_scores(helper):
    with pytest.raises(ValueError, match=r"null has shape \(9, 2\).* of the shape of obs.*\(3,\)"):
        helper(np.zeros(3), np.zeros((9, 2)))
    with pytest.raises(ValueError, match=r"null has shape \(3,\)"):
        helper(np.zeros(3), np.zeros(3))


def test_fdr_of_no_p():
    assert np.isnan(fdr(np.full(3, np.nan))).all()
    assert fdr(np.zeros(0)).shape == (0,)


def test_fdr_against_its_definition(rng):
    """q of the i-th smallest of n is the smallest of p_j n / j over j >= i."""
    p = np.append(rng.random(40) ** 3, np.nan)
    order = np.argsort(p[:40])
    expected = np.empty(40)
    expected[order] = [min(1, (p[order][i:] * 40 / np.arange(i + 1, 41)).min()) for i in range(40)]
    assert np.allclose(fdr(p)[:40], expected)
    assert np.isnan(fdr(p)[40])


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


def test_voxel_that_does_not_vary_in_part_of_the_null(rng):
    """Its r is known, its p is not: the draws that have an r are not the null."""
    fmri_pred, fmri, run, held_out = two_runs(rng)
    fmri_pred[:35, 1] = 0.7
    r, p = voxelwise_null(fmri_pred, fmri, run, held_out, 10, n_permute=200)
    assert np.isfinite(r).all()
    assert np.isnan(p).tolist() == [False, True, False, False]
    assert np.isnan(fdr(p)).tolist() == [False, True, False, False]
