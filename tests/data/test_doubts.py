"""What a wrong lag and drift look like in prepared data."""

from dataclasses import replace

import numpy as np
import pytest

from giblet.data.doubts import doubts
from giblet.data.features import Features

TR = 1.5
N_TRS = 400


@pytest.fixture
def features(rng) -> Features:
    """Two runs; a fifth of the voxels follow the film, and nothing lags it any more."""
    film = rng.standard_normal((N_TRS, 8))
    for row in range(1, N_TRS):
        film[row] = 0.6 * film[row - 1] + 0.8 * film[row]
    signal = film @ rng.standard_normal((8, 100))
    signal[:, 20:] = 0
    fmri = signal / 2 + rng.standard_normal((3, N_TRS, 100))
    run = np.repeat([0, 1], N_TRS // 2)
    one = np.repeat(["train", "gap", "test"], [130, 17, 53])
    nothing = np.zeros((N_TRS, 0), np.float32)
    return Features(
        nothing,
        film.astype(np.float32),
        nothing,
        fmri.astype(np.float32),
        np.ones((3, N_TRS), bool),
        np.concatenate([one, one]),
        run,
    )


def later(features: Features, n_trs: int) -> Features:
    """BOLD that follows the film so many TRs after where it is read."""
    return replace(features, fmri=np.roll(features.fmri, n_trs, axis=1))


def test_a_lag_that_is_right(features):
    said = "responses follow the film most closely 3 TRs (4.5 s) after it, and lag_trs is 3"
    assert doubts(features, TR, 3) == [said]


@pytest.mark.parametrize("told", [0, 1, 8])
def test_a_lag_that_is_wrong(features, told):
    (said,) = doubts(later(features, 3 - told), TR, told)
    assert said == (
        "responses follow the film most closely 3 TRs (4.5 s) after it, but lag_trs is "
        f"{told}: make sure of it"
    )


def test_a_lag_that_is_a_little_off(features):
    (said,) = doubts(later(features, 1), TR, 3)
    assert said.endswith("4 TRs (6 s) after it, and lag_trs is 3")


def test_nothing_follows_the_film(features, rng):
    silent = replace(features, fmri=rng.standard_normal(features.fmri.shape).astype(np.float32))
    (said,) = doubts(silent, TR, 3)
    assert said.startswith("at no lag do responses follow the film clearly")


def test_too_few_trs_say_nothing(features):
    short = replace(features, split=np.repeat(["train", "gap"], [20, N_TRS - 20]))
    assert doubts(short, TR, 3) == []


def test_drift(features):
    """Two SDs over a run: test TRs lie 1.3 from the training TRs."""
    slow = np.tile(np.linspace(0, 2.9, N_TRS // 2), 2)
    drifting = replace(features, fmri=features.fmri + slow[:, None].astype(np.float32))
    said = doubts(drifting, TR, 3)[-1]
    assert said.startswith("BOLD drifts: in the test TRs of a run the mean of a voxel lies 1.")
    assert "[cleaning] in data/README.md" in said


def test_subjects_that_were_not_measured(features):
    """Rows of a subject who was not measured do not count."""
    fmri, valid = features.fmri.copy(), features.valid.copy()
    fmri[1], valid[1] = 1e6, False
    assert doubts(replace(features, fmri=fmri, valid=valid), TR, 3) == doubts(features, TR, 3)
