import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from giblet.alignment import lag_curve


@pytest.fixture
def run() -> np.ndarray:
    return np.repeat([0, 1], [150, 130])


def test_planted_lag_is_found(rng, run):
    stimulus = rng.standard_normal((280, 3)).cumsum(0) % 5
    fmri = rng.standard_normal((280, 40))
    for index, lag in ((slice(0, 20), 4), (slice(20, 30), 0)):
        for rows in (slice(0, 150), slice(150, 280)):
            answer = stimulus[rows] @ rng.standard_normal((3, index.stop - index.start))
            fmri[rows, index] += np.roll(answer, lag, axis=0)
    curve = lag_curve(stimulus, fmri, run, range(-2, 8))
    assert curve[:, :20].mean(1).argmax() - 2 == 4
    assert curve[:, 20:30].mean(1).argmax() - 2 == 0
    assert np.abs(curve[:, 30:].mean(1)).max() < 0.02  # chance is 0


@pytest.mark.parametrize("lag", [-3, 0, 2])
def test_against_scikit_learn(rng, run, lag):
    stimulus = rng.standard_normal((280, 4))
    fmri = rng.standard_normal((280, 5))
    x = []
    y = []
    for index in (0, 1):
        rows = np.flatnonzero(run == index)
        pairs = [(row, row + lag) for row in rows if row + lag in rows]
        a, b = (
            array[list(which)]
            for array, which in zip((stimulus, fmri), zip(*pairs, strict=True), strict=True)
        )
        x.append(a - a.mean(0))
        y.append(b - b.mean(0))
    x = np.concatenate(x)
    y = np.concatenate(y)
    residual = y - LinearRegression(fit_intercept=False).fit(x, y).predict(x)
    r2 = 1 - (residual**2).sum(0) / (y**2).sum(0)
    expected = 1 - (1 - r2) * (len(x) - 1) / (len(x) - 1 - 4)
    assert lag_curve(stimulus, fmri, run, [lag])[0] == pytest.approx(expected)


def test_nothing_crosses_runs(rng, run):
    """A response that goes on in the next run would be found at a lag across the boundary."""
    stimulus = np.zeros((280, 1))
    stimulus[145:150] = 1
    fmri = np.zeros((280, 1))
    fmri[150:155] = 1
    fmri += 0.1 * rng.standard_normal((280, 1))
    assert abs(lag_curve(stimulus, fmri, run, [5])[0, 0]) < 0.05
    assert lag_curve(stimulus, fmri, np.zeros(280), [5])[0, 0] > 0.5


def test_feature_that_repeats_another_counts_once(rng, run):
    stimulus = rng.standard_normal((280, 2))
    fmri = rng.standard_normal((280, 3))
    twice = np.c_[stimulus, stimulus[:, :1]]
    assert np.allclose(lag_curve(twice, fmri, run, [1]), lag_curve(stimulus, fmri, run, [1]))


def test_voxel_that_does_not_vary(rng, run):
    fmri = rng.standard_normal((280, 2))
    fmri[:, 0] = 1
    curve = lag_curve(rng.standard_normal((280, 2)), fmri, run, [0])
    assert np.isnan(curve[0, 0])
    assert np.isfinite(curve[0, 1])
