import gzip

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask
from scipy.spatial import cKDTree

from giblet.data import FMRIProcessor
from giblet.data.fmri import template_mask

AFFINE = np.diag([8.0, 8, 8, 1])
RUNS = [slice(0, 40), slice(40, 90)]


@pytest.fixture
def mask_img(rng):
    return nib.Nifti1Image((rng.random((5, 6, 4)) > 0.4).astype(np.uint8), AFFINE)


@pytest.fixture
def volume(rng):
    return rng.standard_normal((5, 6, 4, 90)).astype(np.float32)


@pytest.fixture
def train():
    return np.isin(np.arange(90), [*range(5, 25), *range(42, 70)])


def save(path, volume, affine=AFFINE):
    nib.save(nib.Nifti1Image(volume, affine), path)
    return path


def scan(tmp_path, mask_img, volume, train):
    """Scan a volume; return the scan, the raw copy and the masked volume as (n_trs, n_voxels)."""
    path = save(tmp_path / "s.nii.gz", volume)
    result = FMRIProcessor().scan(path, mask_img, RUNS, train, tmp_path / "raw.npy", lambda n: None)
    return result, np.load(tmp_path / "raw.npy"), volume[np.asarray(mask_img.dataobj) > 0].T


@pytest.mark.parametrize("n_trs", [3, 64, 150])
def test_reads_what_indexing_the_whole_array_gives(tmp_path, mask_img, rng, n_trs):
    path = save(tmp_path / "s.nii.gz", rng.standard_normal((5, 6, 4, n_trs)).astype(np.float32))
    blocks = list(FMRIProcessor().blocks(path, mask_img, n_trs))
    whole = np.asarray(nib.load(path).dataobj)[np.asarray(mask_img.dataobj) > 0]
    assert np.array_equal(np.concatenate(blocks), whole.T)
    assert max(len(block) for block in blocks) <= 64


def test_scaled_integers_are_read_in_their_unit(tmp_path, mask_img, rng):
    image = nib.Nifti1Image(rng.standard_normal((5, 6, 4, 9)), AFFINE)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "s.nii.gz")
    (block,) = FMRIProcessor().blocks(tmp_path / "s.nii.gz", mask_img, 9)
    assert np.allclose(block, image.get_fdata()[np.asarray(mask_img.dataobj) > 0].T, atol=1e-3)


@pytest.mark.parametrize("baseline", [0, 10_000])
def test_mean_and_sd_of_training_trs_against_float64(tmp_path, mask_img, volume, train, baseline):
    result, raw, series = scan(tmp_path, mask_img, volume + np.float32(baseline), train)
    assert np.array_equal(raw, series)
    for index, run in enumerate(RUNS):
        fitted = series[run][train[run]].astype(np.float64)
        assert np.allclose(result.mean[index], fitted.mean(0), rtol=1e-9)
        assert np.allclose(result.sd[index], fitted.std(0), rtol=1e-6)
    assert result.trs.all()
    assert result.voxels.all()


def test_run_without_training_trs_is_scored_by_itself(tmp_path, mask_img, volume, train):
    train[40:] = False
    result, _, series = scan(tmp_path, mask_img, volume, train)
    assert np.allclose(result.sd[1], series[40:].astype(np.float64).std(0))


@pytest.mark.parametrize("bad", ["constant", "nan", "frozen"])
def test_stretch_without_measurement(tmp_path, mask_img, volume, train, bad):
    """The last 20 TRs hold one value, no number, or the same picture again and again."""
    volume[..., 70:] = {"constant": 3.0, "nan": np.nan, "frozen": volume[..., 70:71]}[bad]
    result, _, _ = scan(tmp_path, mask_img, volume, train)
    assert result.trs.tolist() == [True] * 70 + [False] * 20
    assert result.voxels.all()


def test_first_trs_without_measurement(tmp_path, mask_img, volume, train):
    volume[..., :3] = 0
    assert scan(tmp_path, mask_img, volume, train)[0].trs.tolist() == [False] * 3 + [True] * 87


def test_voxels_that_cannot_be_used(tmp_path, mask_img, volume, train):
    inside = np.argwhere(np.asarray(mask_img.dataobj) > 0)
    (a, b, c, d) = (tuple(inside[n]) for n in (0, 3, 5, 7))
    volume[a] = 812.4  # never varies
    volume[(*b, slice(0, 40))] = 1.0  # not in the first run
    volume[(*c, 17)] = np.nan
    volume[(*d, ~train)] = np.inf  # outside the training TRs
    result, _, _ = scan(tmp_path, mask_img, volume, train)
    assert np.flatnonzero(~result.voxels).tolist() == [0, 3, 5, 7]
    assert result.trs.all()


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_nothing_measured(tmp_path, mask_img, volume, train, value):
    volume[:] = value
    with pytest.raises(
        ValueError,
        match=r"s\.nii\.gz holds no TR with finite, changing values: leave the subject out",
    ):
        scan(tmp_path, mask_img, volume, train)


def read(path, mask_img, n_trs: int = 10):
    return list(FMRIProcessor().blocks(path, mask_img, n_trs))


def test_three_dimensions(tmp_path, mask_img):
    with pytest.raises(
        ValueError, match=r"s\.nii\.gz has shape \(5, 6, 4\), expected 4-D, with TRs last"
    ):
        read(save(tmp_path / "s.nii.gz", np.zeros((5, 6, 4), np.float32)), mask_img)


@pytest.mark.parametrize(
    ("shape", "affine"), [((5, 6, 5, 10), AFFINE), ((5, 6, 4, 10), np.diag([8.0, 8, 7, 1]))]
)
def test_other_grid(tmp_path, mask_img, shape, affine):
    path = save(tmp_path / "s.nii.gz", np.zeros(shape, np.float32), affine)
    with pytest.raises(
        ValueError,
        match=r"s\.nii\.gz lies on another grid than the mask, .*: resample one to the other",
    ):
        read(path, mask_img)


def test_other_length(tmp_path, mask_img):
    path = save(tmp_path / "s.nii.gz", np.zeros((5, 6, 4, 9), np.float32))
    with pytest.raises(ValueError, match=r"s\.nii\.gz has 9 TRs, expected 10: mend run_trs"):
        read(path, mask_img)


def test_no_nifti(tmp_path, mask_img):
    (tmp_path / "s.nii").write_text("not a brain")
    with pytest.raises(ValueError, match=r"s\.nii cannot be read as NIfTI"):
        read(tmp_path / "s.nii", mask_img)


def test_half_a_file(tmp_path, mask_img, volume):
    path = save(tmp_path / "s.nii.gz", volume)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"s\.nii\.gz is damaged"):
        read(path, mask_img, 90)
    path.write_bytes(gzip.compress(b"x" * 100))
    with pytest.raises(ValueError, match=r"s\.nii\.gz cannot be read as NIfTI"):
        read(path, mask_img)


@pytest.mark.parametrize("shape", [(7,), ()])
def test_back_to_nifti(tmp_path, mask_img, rng, shape):
    mask = np.asarray(mask_img.dataobj) > 0
    features = rng.standard_normal((*shape, mask.sum()))
    FMRIProcessor(1.5, mask_img).features_to_nifti(features, tmp_path / "out.nii.gz")
    image = nib.load(tmp_path / "out.nii.gz")
    assert np.array_equal(image.affine, AFFINE)
    assert image.header.get_zooms()[3:] == ((1.5,) if shape else ())
    assert np.allclose(np.asarray(image.dataobj)[mask].T, features, atol=1e-6)
    assert np.all(np.asarray(image.dataobj)[~mask] == 0)


def test_back_to_nifti_needs_all_voxels(tmp_path, mask_img):
    with pytest.raises(ValueError, match=r"features have shape \(3, 4\), expected \(n_trs, "):
        FMRIProcessor(1.5, mask_img).features_to_nifti(np.zeros((3, 4)), tmp_path / "out.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_template_is_the_brain_and_six_millimetres():
    image = nib.Nifti1Image(
        np.zeros((61, 73, 61), np.uint8),
        np.array([[3.0, 0, 0, -90], [0, 3, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]]),
    )
    found = np.asarray(template_mask(image).dataobj) > 0
    brain = load_mni152_brain_mask(resolution=2)
    centres = nib.affines.apply_affine(brain.affine, np.argwhere(np.asarray(brain.dataobj) > 0))
    voxels = nib.affines.apply_affine(image.affine, np.argwhere(np.ones(found.shape)))
    distance = cKDTree(centres).query(voxels)[0].reshape(found.shape)
    assert found[distance < 4].all()
    assert not found[distance > 8].any()


def test_template_holds_the_regions_of_the_real_data(real_data):
    masks = [nib.load(path) for path in sorted((real_data / "sherlock").glob("mask_*.nii.gz"))]
    found = np.asarray(template_mask(masks[0]).dataobj) > 0
    assert all(found[mask.get_fdata() != 0].mean() > 0.99 for mask in masks)
