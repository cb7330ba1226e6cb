"""Files and arrays are standardised by the same functions, to what float64 gives directly."""

import nibabel as nib
import numpy as np
import pytest

from giblet.data import MultimodalDataset
from giblet.data.features import BLOCK_TRS, run_statistics, zscored

N_TRS = 2 * BLOCK_TRS + 30  # more than two blocks


def directly(bold, fitted, measured) -> np.ndarray:
    """One run in SDs of some of its TRs, 0 where it was not measured."""
    learned = bold[fitted].astype(np.float64)
    z = (bold - learned.mean(0)) / learned.std(0)
    return np.where(measured[:, None], z, 0)


@pytest.fixture
def bold(rng) -> np.ndarray:
    """Voxels of small variance on a large baseline, in float32 as files hold them."""
    values = 3e4 + rng.uniform(0.5, 20, 12) * rng.standard_normal((N_TRS, 12))
    return values.astype(np.float32)


def test_statistics_are_those_of_the_usable_training_trs(bold):
    train = np.arange(N_TRS) < 90
    usable = np.arange(N_TRS) % 7 > 0
    bold[~usable] = np.nan
    mean, sd, voxels = run_statistics(bold, usable, train)
    learned = bold[usable & train].astype(np.float64)
    np.testing.assert_allclose(mean, learned.mean(0), rtol=1e-12)
    np.testing.assert_allclose(sd, learned.std(0), rtol=1e-9)
    assert voxels.all()
    expected = directly(bold, usable & train, usable)
    np.testing.assert_allclose(zscored(bold, mean, sd, usable), expected, atol=1e-6)


def test_run_without_training_trs_takes_all_that_is_usable(bold):
    usable = np.arange(N_TRS) > 4
    mean, sd, _ = run_statistics(bold, usable, np.zeros(N_TRS, bool))
    np.testing.assert_allclose(mean, bold[usable].mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(sd, bold[usable].std(0, dtype=np.float64), rtol=1e-9)


def test_voxels_that_cannot_be_used(bold):
    """Constant in training, or not finite in a usable TR; elsewhere it does not matter."""
    every = np.ones(N_TRS, bool)
    train = np.arange(N_TRS) < 90
    bold[:90, 0] = 7.0
    bold[150, 1] = np.nan
    bold[0, 2] = np.inf
    usable = every.copy()
    usable[0] = False
    assert np.flatnonzero(~run_statistics(bold, every, train)[2]).tolist() == [0, 1, 2]
    mean, sd, voxels = run_statistics(bold, usable, train)
    assert np.flatnonzero(~voxels).tolist() == [0, 1]
    z = zscored(bold, mean, np.where(voxels, sd, 0), usable)
    assert (z[:, 0] == 0).all()
    assert (z[0] == 0).all()
    assert z.dtype == np.float32


@pytest.mark.parametrize("n_usable", [0, 1])
def test_run_that_is_hardly_measured_is_nothing(bold, n_usable):
    usable = np.arange(N_TRS) < n_usable
    mean, sd, voxels = run_statistics(bold, usable, np.ones(N_TRS, bool))
    assert (mean == 0).all()
    assert (sd == 0).all()
    assert voxels.all()
    assert (zscored(bold, mean, sd, usable) == 0).all()


@pytest.mark.parametrize("test_runs", [(), (1,)])
def test_files_and_arrays_are_the_same(simulated, tiny_video, test_runs):
    """The series of a folder as arrays, shifted by the same lag, and both as computed directly."""
    settings = {"split": "all", "test_runs": test_runs}
    files = MultimodalDataset(simulated, video_processor=tiny_video, progress=False, **settings)
    mask = np.asarray(files.mask_img.dataobj) > 0
    paths = [path for (path,) in files.folder.subjects.values()]
    series = np.stack([np.asarray(nib.load(path).dataobj)[mask].T for path in paths])
    clock = {"runs": files.folder.run_trs, "lag_trs": files.folder.lag_trs, "tr": files.tr}
    text = np.random.default_rng(0).standard_normal((series.shape[1], 3))
    arrays = MultimodalDataset.from_arrays(text=text, fmri=series, **clock, **settings)
    assert np.array_equal(arrays.split_labels, files.split_labels)
    assert np.array_equal(arrays.features.valid, files.features.valid)
    assert np.array_equal(arrays.fmri(), files.fmri())
    lag = files.folder.lag_trs
    for subject, values in enumerate(series):
        for run in files.folder.runs:
            rows = slice(run.start, run.stop - lag)
            own = values[run][lag:]
            train = files.split_labels[rows] == "train"
            fitted = train if train.any() else np.ones(len(own), bool)
            if not train.any():  # also the first TRs of BOLD, which no stimulus has
                learned = values[run].astype(np.float64)
                expected = (own - learned.mean(0)) / learned.std(0)
            else:
                expected = directly(own, fitted, np.ones(len(own), bool))
            found = files.features.fmri[subject, rows]
            np.testing.assert_allclose(found, expected, atol=1e-5)
