import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_1samp

from giblet.analysis.comparison import EVERY, sign_flip_p, subject_interval
from giblet.analysis.prediction import Prediction
from giblet.data import MultimodalDataset


@pytest.mark.parametrize("n_subjects", [5, 20])
def test_sign_flips_against_scipy(rng, n_subjects):
    differences = rng.normal([0, 0.3, 0.6, 2], 1, (n_subjects, 4))
    got = sign_flip_p(differences)
    for column, p in zip(differences.T, got, strict=True):
        want = permutation_test(
            (column,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1
        ).pvalue
        assert abs(p - want) < 0.02 + 2e-4


def test_interval_over_subjects_against_scipy(rng):
    differences = rng.standard_normal((9, 3))
    mean, low, high, _ = subject_interval(differences)
    for number, column in enumerate(differences.T):
        want = ttest_1samp(column, 0).confidence_interval()
        assert np.allclose((low[number], high[number]), want)
    assert np.allclose(mean, differences.mean(0))


def test_nan_and_a_single_subject():
    one = subject_interval(np.ones((1, 2)))
    assert np.array_equal(one[0], [1, 1])
    assert np.isnan(one[1:]).all()
    assert np.isnan(sign_flip_p(np.array([[np.nan], [1.0]]))).all()
    assert sign_flip_p(np.zeros((6, 1))) == 1


@pytest.fixture
def prediction(rng) -> Prediction:
    """What is planted: the better half of a response, of which ridge regression sees the text."""
    text = rng.standard_normal((600, 5))
    hidden = rng.standard_normal(600)
    signal = np.stack([text[:, 0] + hidden, text[:, 1]], axis=1)
    fmri = signal + rng.standard_normal((8, 600, 2))
    data = MultimodalDataset.from_arrays(
        text=text, fmri=fmri, runs=[300, 300], regions=["bent", "straight"]
    )
    whole = data.select("all", average=True)
    return Prediction(None, data, fmri_pred=signal[whole.tr_index].astype(np.float32))


def test_a_planted_difference_is_found_and_none_where_there_is_none(prediction):
    table = prediction.comparison_table(n_boot=300)
    apart = table["model - ridge"]
    people = table["over subjects"]
    for one in (apart, people):
        assert one.loc["bent", "low"] > 0.1
        assert one.loc["bent", "p"] < 0.02
        assert one.loc["straight", "low"] < 0 < one.loc["straight", "high"] + 0.02
        assert abs(one.loc["straight", "r"]) < 0.02
    assert np.allclose(table.loc[EVERY, ("model", "r")], table["model"]["r"][:2].mean())
    assert np.allclose(table["model"]["r"] - table["ridge"]["r"], apart["r"])
    same = prediction.region_table(n_permute=99, n_boot=300)
    assert np.allclose(same["r - ridge"], apart["r"][:2])
    assert np.allclose(same["low"], apart["low"][:2], atol=1e-6)
    assert "network" not in table and "weight" not in table["ridge"]
