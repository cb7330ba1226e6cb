import gzip

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask
from scipy.spatial import cKDTree

from giblet.data import FMRIProcessor
from giblet.data.fmri import template_mask
from giblet.data.pieces import Piece

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
    result = FMRIProcessor().scan(
        [Piece(path, slice(0, 90))], mask_img, RUNS, train, tmp_path / "raw.npy", lambda n: None
    )
    return result, np.load(tmp_path / "raw.npy"), volume[np.asarray(mask_img.dataobj) > 0].T


@pytest.mark.parametrize("n_trs", [3, 64, 150])
def test_reads_what_indexing_the_whole_array_gives(tmp_path, mask_img, rng, n_trs):
    path = save(tmp_path / "s.nii.gz", rng.standard_normal((5, 6, 4, n_trs)).astype(np.float32))
    blocks = list(FMRIProcessor().blocks(Piece(path, slice(0, n_trs)), mask_img))
    whole = np.asarray(nib.load(path).dataobj)[np.asarray(mask_img.dataobj) > 0]
    assert np.array_equal(np.concatenate(blocks), whole.T)
    assert max(len(block) for block in blocks) <= 64


def test_scaled_integers_are_read_in_their_unit(tmp_path, mask_img, rng):
    image = nib.Nifti1Image(rng.standard_normal((5, 6, 4, 9)), AFFINE)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "s.nii.gz")
    (block,) = FMRIProcessor().blocks(Piece(tmp_path / "s.nii.gz", slice(0, 9)), mask_img)
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


SPOILED = {
    "zeros": (lambda x: 0 * x, "have the same value in every voxel"),
    "one value": (lambda x: 0 * x + 700, "have the same value in every voxel"),
    "every second voxel": (lambda x: x * (np.arange(x.size) % 2), "lack over a quarter"),
    "first half": (lambda x: x * (np.arange(x.size) < x.size / 2), "lack over a quarter"),
    "half NaN": (lambda x: np.where(np.arange(x.size) % 2, x, np.nan), "lack over a quarter"),
    "10 times": (lambda x: 10 * x, "are many times stronger or weaker"),
    "1000 times": (lambda x: 1000 * x, "are many times stronger or weaker"),
    "a hundredth": (lambda x: x / 100, "are many times stronger or weaker"),
    "noise of 1e6": (
        lambda x: 1e6 * np.random.default_rng(1).standard_normal(x.size),
        "are many times stronger or weaker",
    ),
}


@pytest.mark.parametrize("baseline", [0, 1000])
@pytest.mark.parametrize("kind", SPOILED)
def test_single_volumes_unlike_the_others(tmp_path, mask_img, volume, train, kind, baseline):
    """Two of 90 TRs, one in each run; the voxels of the others are scored as without them."""
    spoil, reason = SPOILED[kind]
    inside = np.asarray(mask_img.dataobj) > 0
    volume = baseline + 20 * volume
    for tr in (10, 60):
        volume[inside, tr] = spoil(volume[inside, tr])
    result, _, series = scan(tmp_path, mask_img, volume, train)
    assert np.flatnonzero(~result.trs).tolist() == [10, 60]
    assert result.voxels.all()
    fitted = [row for row in np.flatnonzero(train[:40]) if row != 10]
    assert np.allclose(result.sd[0], series[fitted].astype(np.float64).std(0), rtol=1e-6)
    (said,) = result.sentences(tmp_path / "s.nii.gz")
    assert said.startswith(f"{tmp_path / 's.nii.gz'}: 2 TRs that {reason}")
    assert said.endswith(" are left out: 10, 60")


@pytest.mark.parametrize("n_weak", [15, 30])
def test_a_part_of_the_run_is_no_accident(tmp_path, mask_img, volume, train, n_weak):
    """Two scans joined to one run, the first of which is a hundred times weaker."""
    volume = 1000 + 20 * volume
    volume[..., :n_weak] /= 100
    assert scan(tmp_path, mask_img, volume, train)[0].trs.all()


def test_reasons_and_first_trs(tmp_path, mask_img, volume, train):
    volume[..., 3] = np.nan
    volume[..., 20:26] = volume[..., 20:21]
    result, _, _ = scan(tmp_path, mask_img, volume, train)
    path = tmp_path / "s.nii.gz"
    assert result.sentences(path) == [
        f"{path}: 1 TRs that hold no finite value are left out: 3",
        f"{path}: 6 TRs that repeat a neighbour are left out: 20, 21, 22, ...",
    ]


OFFSETS = {
    "float64": (np.float64, None, 1e-6),
    "int32": (np.int32, None, 1e-6),
    "int64": (np.int64, None, 1e-6),
    "slope and intercept": (np.int16, (0.01, 1e8), 1e-6),
    "int16": (np.int16, (20, 0), 1e-6),
}


@pytest.mark.parametrize("kind", OFFSETS)
def test_large_offsets_against_float64(tmp_path, mask_img, volume, train, kind):
    """A signal of SD 20 on an offset of 1e8, which float32 rounds to multiples of 8."""
    dtype, scaling, rtol = OFFSETS[kind]
    if scaling is None:
        values = (1e8 + 20 * volume.astype(np.float64)).astype(dtype)
        image = nib.Nifti1Image(values, AFFINE, dtype=dtype)
    else:
        slope, intercept = scaling
        integers = np.round(2000 * volume).astype(np.int16)
        image = nib.Nifti1Image(integers, AFFINE)
        image.header.set_slope_inter(slope, intercept)
        values = integers * np.float64(np.float32(slope)) + intercept
    nib.save(image, tmp_path / "s.nii")
    piece = Piece(tmp_path / "s.nii", slice(0, 90))
    result = FMRIProcessor().scan(
        [piece], mask_img, RUNS, train, tmp_path / "raw.npy", lambda n: None
    )
    raw = np.load(tmp_path / "raw.npy")
    assert result.voxels.all()
    assert result.trs.all()
    series = values[np.asarray(mask_img.dataobj) > 0].T.astype(np.float64)
    for index, run in enumerate(RUNS):
        fitted = series[run][train[run]]
        expected = (series[run] - fitted.mean(0)) / fitted.std(0)
        found = (raw[run] - result.mean[index]) / result.sd[index]
        assert np.allclose(found, expected, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_usual_series_are_kept_in_float32(tmp_path, mask_img, volume, train, dtype):
    result, raw, series = scan(tmp_path, mask_img, (1000 + 20 * volume).astype(dtype), train)
    assert raw.dtype == np.float32
    assert np.array_equal(raw, series.astype(np.float32))
    assert result.voxels.all()


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_nothing_measured(tmp_path, mask_img, volume, train, value):
    volume[:] = value
    with pytest.raises(
        ValueError,
        match=r"s\.nii\.gz holds no TR with finite, changing values: leave the subject out",
    ):
        scan(tmp_path, mask_img, volume, train)


def read(path, mask_img, n_trs: int = 10):
    return list(FMRIProcessor().blocks(Piece(path, slice(0, n_trs)), mask_img))


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


@pytest.mark.parametrize("axes", ["LAS", "PIR"])
def test_same_grid_of_other_axes(tmp_path, mask_img, axes):
    image = nib.Nifti1Image(np.zeros((5, 6, 4, 10), np.float32), AFFINE)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axes)
    )
    nib.save(image.as_reoriented(turn), tmp_path / "s.nii.gz")
    with pytest.raises(
        ValueError,
        match=rf"only the order and direction of axes differ \({axes} and RAS\), so reorient one",
    ):
        read(tmp_path / "s.nii.gz", mask_img)


def test_trs_that_a_series_does_not_have(tmp_path, mask_img, volume):
    """They are NaN, and all of a run that was not measured is."""
    path = save(tmp_path / "s.nii.gz", volume)
    inside = np.asarray(mask_img.dataobj) > 0
    blocks = list(FMRIProcessor().blocks(Piece(path, slice(80, 100)), mask_img))
    found = np.concatenate(blocks)
    assert np.array_equal(found[:10], volume[..., 80:][inside].T)
    assert np.isnan(found[10:]).all() and found.shape == (20, inside.sum())
    (nothing,) = FMRIProcessor().blocks(Piece(None, slice(0, 5)), mask_img)
    assert np.isnan(nothing).all() and nothing.shape == (5, inside.sum())


def test_a_run_that_was_not_measured(tmp_path, mask_img, volume, train):
    """Its TRs cannot be used, and the other run is what it is alone."""
    path = save(tmp_path / "s.nii.gz", volume[..., 40:])
    pieces = [Piece(None, RUNS[0]), Piece(path, slice(0, 50))]
    raw = tmp_path / "raw.npy"
    result = FMRIProcessor().scan(pieces, mask_img, RUNS, train, raw, lambda n: None)
    assert not result.trs[RUNS[0]].any()
    assert result.trs[RUNS[1]].all() and result.voxels.all()
    assert result.sentences("s") == []


def test_no_nifti(tmp_path, mask_img):
    (tmp_path / "s.nii").write_text("not a brain")
    with pytest.raises(ValueError, match=r"s\.nii cannot be read as NIfTI"):
        read(tmp_path / "s.nii", mask_img)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_checksum_of_a_file(tmp_path, mask_img, volume, share):
    """A bit that was lost in a copy: gzip would decompress on to other values."""
    path = save(tmp_path / "s.nii.gz", volume)
    raw = bytearray(path.read_bytes())
    raw[int(share * len(raw))] ^= 64
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"s\.nii\.gz is damaged.*: copy it again"):
        read(path, mask_img, 90)


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
