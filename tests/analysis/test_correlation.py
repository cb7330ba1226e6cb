import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn import metrics

from giblet.analysis.correlation import r2_score, subject_correlations, voxelwise_correlation
from giblet.data import MultimodalDataset


def test_r_against_scipy(rng):
    fmri_pred, fmri = rng.standard_normal((2, 50, 3))
    run = np.repeat([0, 1], [20, 30])
    expected = [
        0.4 * pearsonr(fmri_pred[:20, v], fmri[:20, v])[0]
        + 0.6 * pearsonr(fmri_pred[20:, v], fmri[20:, v])[0]
        for v in range(3)
    ]
    assert voxelwise_correlation(fmri_pred, fmri, run) == pytest.approx(expected)


def test_a_difference_between_runs_is_no_prediction(rng):
    """Pooled over runs a shift of the mean would give r near 1."""
    run = np.repeat([0, 1], 200)
    fmri_pred, fmri = rng.standard_normal((2, 400, 2)) + 10 * run[:, None]
    assert np.abs(voxelwise_correlation(fmri_pred, fmri, run)).max() < 0.2


def test_voxel_that_does_not_vary(rng):
    fmri_pred, fmri = rng.standard_normal((2, 20, 2))
    fmri_pred[:, 1] = 3.0
    r = voxelwise_correlation(fmri_pred, fmri, np.zeros(20))
    assert np.isfinite(r[0])
    assert np.isnan(r[1])


def test_r2_against_scikit_learn(rng):
    fmri = rng.standard_normal((90, 4)) + 3
    fmri_pred = fmri + 0.5 * rng.standard_normal((90, 4))
    run = np.repeat([0, 1], [30, 60])
    parts = [
        metrics.r2_score(fmri[run == n], fmri_pred[run == n], multioutput="raw_values")
        for n in (0, 1)
    ]
    assert np.allclose(r2_score(fmri_pred, fmri, run), (30 * parts[0] + 60 * parts[1]) / 90)
    fmri[run == 1, 2] = 5
    r2 = r2_score(fmri_pred, fmri, run)
    assert np.isnan(r2[2])
    assert np.isfinite(r2[[0, 1, 3]]).all()


def test_subject_correlations_against_scipy(rng):
    fmri = rng.standard_normal((2, 600, 3))
    fmri[1, 560:575] = np.nan
    data = MultimodalDataset.from_arrays(text=np.ones((600, 1)), fmri=fmri, split="test")
    fmri_pred = rng.standard_normal((data.n_trs, 3))
    r = subject_correlations(fmri_pred, data, block_voxels=2)
    series = data.fmri()
    for subject, voxel in np.ndindex(2, 3):
        rows = np.isfinite(series[subject, :, voxel])
        assert rows.sum() == data.n_trs - (0, 15)[subject]
        assert r[subject, voxel] == pytest.approx(
            pearsonr(fmri_pred[rows, voxel], series[subject, rows, voxel])[0]
        )
    with pytest.raises(ValueError, match="average=False"):
        subject_correlations(fmri_pred, data.select("test", average=True))
    with pytest.raises(ValueError, match=r"holds \d+ training TRs"):
        subject_correlations(rng.standard_normal((600, 3)), data.select("all"))
