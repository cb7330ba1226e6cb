import numpy as np
import pytest
from scipy.stats import pearsonr

from giblet.analysis.ceiling import (
    inter_subject_correlation,
    prediction_ceiling,
    split_half_reliability,
)
from giblet.data import MultimodalDataset


def test_inter_subject_correlation_against_a_loop(rng):
    """Three subjects, one of them not measured for a while, in two runs."""
    fmri = rng.standard_normal((3, 160, 5)) + rng.standard_normal((160, 5))
    fmri[1, 60:75] = np.nan
    data = MultimodalDataset.from_arrays(
        text=np.ones((160, 1)), fmri=fmri, runs=[80, 80], split="all"
    )
    isc = inter_subject_correlation(data, block_voxels=2)
    series = data.fmri().astype(np.float64)
    for subject in range(3):
        others = np.nanmean(np.delete(series, subject, axis=0), axis=0)
        for voxel in range(5):
            r = []
            for rows in (np.arange(80), np.arange(80, 160)):
                rows = rows[np.isfinite(series[subject, rows, voxel])]
                r.append(
                    (len(rows), pearsonr(series[subject, rows, voxel], others[rows, voxel])[0])
                )
            assert isc[subject, voxel] == pytest.approx(
                np.average([x for _, x in r], weights=[n for n, _ in r])
            )


def test_inter_subject_correlation_needs_subjects(rng):
    fmri = rng.standard_normal((2, 80, 3))
    for ceiling in (inter_subject_correlation, split_half_reliability):
        for settings in ({"fmri": fmri, "average": True}, {"fmri": fmri[0]}):
            with pytest.raises(ValueError, match="needs two subjects or more"):
                ceiling(MultimodalDataset.from_arrays(text=np.ones((80, 1)), **settings))


def test_ceiling_is_what_the_signal_itself_would_reach(rng):
    """Six subjects with a planted share of signal: r of the truth with their mean is known."""
    signal = rng.standard_normal((4000, 1))
    noise = rng.standard_normal((6, 4000, 3))
    fmri = signal + noise * np.array([0.5, 1.0, 2.0])
    fmri[2, 100:160] = np.nan
    data = MultimodalDataset.from_arrays(text=np.ones((4000, 1)), fmri=fmri, split="all")
    expected = 1 / np.sqrt(1 + np.array([0.25, 1, 4]) / 6)
    assert np.allclose(
        prediction_ceiling(split_half_reliability(data, block_voxels=2)), expected, atol=0.02
    )
    reached = [pearsonr(signal[:, 0], np.nanmean(fmri, axis=0)[:, voxel])[0] for voxel in range(3)]
    assert np.allclose(reached, expected, atol=0.02)


def test_reliability_of_noise_is_nothing(rng):
    data = MultimodalDataset.from_arrays(
        text=np.ones((2000, 1)), fmri=rng.standard_normal((4, 2000, 50)), split="all"
    )
    reliability = split_half_reliability(data)
    assert np.mean(reliability) == pytest.approx(0, abs=0.015)
    assert np.mean(reliability < 0) > 0.25
    assert np.all(prediction_ceiling(reliability)[reliability < 0] == 0)
