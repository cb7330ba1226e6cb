import nibabel as nib
import numpy as np
import pytest

from giblet.data import FMRIProcessor

AFFINE = np.diag([8.0, 8, 8, 1])


@pytest.fixture
def mask_img(rng):
    return nib.Nifti1Image((rng.random((5, 6, 4)) > 0.4).astype(np.uint8), AFFINE)


def save(path, volume, affine=AFFINE):
    nib.save(nib.Nifti1Image(volume, affine), path)
    return path


@pytest.mark.parametrize("n_trs", [3, 64, 150])
def test_reads_what_indexing_the_whole_array_gives(tmp_path, mask_img, rng, n_trs):
    path = save(tmp_path / "s.nii.gz", rng.standard_normal((5, 6, 4, n_trs)).astype(np.float32))
    features, ticks = np.zeros((n_trs, int(mask_img.dataobj.sum())), np.float32), []
    FMRIProcessor().fill(path, mask_img, features, ticks.append)
    whole = np.asarray(nib.load(path).dataobj)[np.asarray(mask_img.dataobj) > 0]
    assert np.array_equal(features, whole.T)
    assert sum(ticks) == n_trs


def test_scaled_integers_are_read_in_their_unit(tmp_path, mask_img, rng):
    image = nib.Nifti1Image(rng.standard_normal((5, 6, 4, 9)), AFFINE)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "s.nii.gz")
    features = np.zeros((9, int(mask_img.dataobj.sum())), np.float32)
    FMRIProcessor().fill(tmp_path / "s.nii.gz", mask_img, features)
    assert np.allclose(features, image.get_fdata()[np.asarray(mask_img.dataobj) > 0].T, atol=1e-3)


@pytest.mark.parametrize("shape", [(5, 6, 4), (5, 6, 4, 9), (5, 6, 5, 10)])
def test_wrong_shape(tmp_path, mask_img, shape):
    path = save(tmp_path / "s.nii.gz", np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"s\.nii\.gz has shape \(5, 6, .*, expected \(5, 6, 4, 10\): mend"):
        FMRIProcessor().fill(path, mask_img, np.zeros((10, int(mask_img.dataobj.sum())), np.float32))


def test_other_grid(tmp_path, mask_img):
    path = save(tmp_path / "s.nii.gz", np.zeros((5, 6, 4, 10), np.float32), np.diag([8.0, 8, 7, 1]))
    with pytest.raises(ValueError, match=r"s\.nii\.gz lies on another grid than the mask"):
        FMRIProcessor().fill(path, mask_img, np.zeros((10, int(mask_img.dataobj.sum())), np.float32))


def test_standardize_against_float64(rng):
    """Baseline 10,000 and SD 1: the mean in float32 arithmetic would be wrong in the second digit."""
    bold = (10_000 + rng.standard_normal((200, 7))).astype(np.float32)
    train = np.arange(200) < 120
    exact = bold.astype(np.float64)
    exact = (exact - exact[train].mean(0)) / exact[train].std(0)
    assert np.allclose(FMRIProcessor().standardize(bold, train), exact, atol=1e-4)


def test_constant_voxel_becomes_zero(rng):
    bold = rng.standard_normal((50, 2)).astype(np.float32)
    bold[:, 1] = 812.4
    bold[40:, 1] = 900  # varies only where nothing is learned
    standardized = FMRIProcessor().standardize(bold, np.arange(50) < 30)
    assert np.all(standardized[:, 1] == 0)
    assert standardized[:30, 0].std() == pytest.approx(1, abs=1e-5)
