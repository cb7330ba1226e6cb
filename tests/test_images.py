"""Every file that is no whole NIfTI is refused in one sentence that names it."""

import bz2
import gzip
import io

import nibabel as nib
import numpy as np
import pytest

from giblet.images import load_image, load_mask, load_series, mask_voxels, read_values

AFFINE = np.diag([8.0, 8, 8, 1])
SHAPE = (5, 6, 4, 30)


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    """A whole .nii of float32."""
    volume = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    path = tmp_path_factory.mktemp("whole") / "s.nii"
    nib.save(nib.Nifti1Image(volume, AFFINE), path)
    return path.read_bytes()


def with_header(content: bytes, **fields) -> bytes:
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(content))
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + content[348:]


NO_NIFTI = {
    "empty": ("s.nii", lambda x: b"", "is empty"),
    "empty.gz": ("s.nii.gz", lambda x: b"", "is empty"),
    "git-annex": ("s.nii.gz", lambda x: b"/annex/objects/MD5E-s1--0.nii.gz\n", "pointer of git-"),
    "git-annex on Windows": ("s.nii", lambda x: b"../.git/annex/objects/a/b", "pointer of git-"),
    "Git LFS": ("s.nii", lambda x: b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
    "web page": ("s.nii.gz", lambda x: b"\n<!DOCTYPE html>", "it is a web page"),
    "not gzip": ("s.nii.gz", lambda x: x, "it is not compressed by gzip"),
    "gzip": ("s.nii", gzip.compress, r"is compressed by gzip: rename it to s\.nii\.gz"),
    "twice gzip": ("s.nii.gz", lambda x: gzip.compress(gzip.compress(x)), "cannot be read as"),
    "cut header": ("s.nii", lambda x: x[:200], "cannot be read as NIfTI"),
    "cut gzip": ("s.nii.gz", lambda x: gzip.compress(x)[:100], "cannot be read as NIfTI"),
    "header alone": ("s.nii", lambda x: x[:352], "has 352 bytes where its header, .* 14752"),
    "half": ("s.nii", lambda x: x[:7000], "is cut or damaged, it has 7000 bytes"),
    "one byte less": ("s.nii", lambda x: x[:-1], "is cut or damaged, it has 14751 bytes"),
    "noise": ("s.nii", lambda x: bytes(range(256)) * 20, "cannot be read as NIfTI"),
}
NONSENSE = {
    "no TRs": ({"dim": [4, 5, 6, 4, 0, 1, 1, 1]}, r"has shape \(5, 6, 4, 0\)"),
    "less than no TRs": ({"dim": [4, 5, 6, 4, -3, 1, 1, 1]}, r"has shape \(5, 6, 4, -3\)"),
    "two axes": ({"dim": [2, 60, 60, 1, 1, 1, 1, 1]}, r"has shape \(60, 60\)"),
    "huge": ({"dim": [4, 32767, 32767, 32767, 9, 1, 1, 1]}, "is cut or damaged"),
    "unknown type": ({"datatype": 999}, "cannot be read as NIfTI"),
    "far offset": ({"vox_offset": 1e9}, "is cut or damaged"),
    "no intercept": ({"scl_slope": 1, "scl_inter": np.nan}, "cannot be read as NIfTI"),
    "complex": ({"datatype": 32}, "holds complex64 values, expected real numbers"),
    "RGB": ({"datatype": 128}, "holds RGB values, expected real numbers"),
    "no orientation": (
        {"sform_code": 0},
        r"has no orientation \(sform_code and qform_code are 0\)",
    ),
    "bad quaternion": ({"sform_code": 0, "qform_code": 1, "quatern_b": 5}, "cannot be read as"),
    "NaN affine": ({"srow_x": [np.nan] * 4}, "expected one that can be inverted"),
    "flat affine": ({"srow_x": [0, 8, 0, 0]}, "expected one that can be inverted"),
    "metres": (
        {"srow_x": [3e-3, 0, 0, 0], "srow_y": [0, 3e-3, 0, 0], "srow_z": [0, 0, 3e-3, 0]},
        "has voxels of 0.003 x 0.003 x 0.003 mm, expected 0.01 to 100 mm",
    ),
}


def refused(path, message: str, error: type = ValueError) -> None:
    with pytest.raises(error, match=message) as found:
        load_image(path)
    assert type(found.value) is error
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("kind", NO_NIFTI)
def test_no_whole_nifti(tmp_path, content, kind):
    name, spoil, message = NO_NIFTI[kind]
    (tmp_path / name).write_bytes(spoil(content))
    refused(tmp_path / name, message)


@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz"])
@pytest.mark.parametrize("kind", NONSENSE)
def test_headers_of_nonsense(tmp_path, content, kind, name):
    fields, message = NONSENSE[kind]
    spoiled = with_header(content, **fields)
    (tmp_path / name).write_bytes(gzip.compress(spoiled) if name.endswith(".gz") else spoiled)
    refused(tmp_path / name, message)


def test_names_without_a_file(tmp_path):
    refused(tmp_path / "s.nii", "is missing", FileNotFoundError)
    (tmp_path / "s.nii").symlink_to(".git/annex/objects/x")
    refused(tmp_path / "s.nii", "is a link to .*x, which is missing: fetch", FileNotFoundError)
    refused(tmp_path, "is a folder or device")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("s.mgz", lambda: nib.MGHImage(np.zeros(SHAPE, np.float32), AFFINE)),
        (
            "s.gii",
            lambda: nib.gifti.GiftiImage(
                darrays=[nib.gifti.GiftiDataArray(np.zeros((5, 3), np.float32))]
            ),
        ),
        (
            "s.dtseries.nii",
            lambda: nib.Cifti2Image(
                np.zeros((30, 10), np.float32),
                (
                    nib.cifti2.SeriesAxis(0, 1.5, 30),
                    nib.cifti2.BrainModelAxis.from_surface(np.arange(10), 20, "CortexLeft"),
                ),
            ),
        ),
        ("s.img", lambda: nib.AnalyzeImage(np.zeros(SHAPE, np.float32), AFFINE)),
    ],
)
def test_other_formats(tmp_path, name, make):
    nib.save(make(), tmp_path / name)
    refused(tmp_path / name, "expected a NIfTI volume: convert it")


def test_pair_without_its_half(tmp_path, content):
    nib.save(nib.Nifti1Pair(np.zeros(SHAPE, np.float32), AFFINE), tmp_path / "s.hdr")
    assert load_series(tmp_path / "s.hdr").shape == SHAPE
    (tmp_path / "s.img").unlink()
    refused(tmp_path / "s.hdr", r"belongs to .*s\.img, which is missing", FileNotFoundError)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("s.nii", bytes),
        ("s.nii.gz", gzip.compress),
        ("s.NII.GZ", gzip.compress),
        ("s.nii.bz2", bz2.compress),
        ("s.nii", lambda x: x + bytes(100)),
        ("s.nii.gz", lambda x: gzip.compress(x[:999]) + gzip.compress(x[999:])),
    ],
)
def test_whole_files_are_read(tmp_path, content, name, pack):
    (tmp_path / name).write_bytes(pack(content))
    expected = np.frombuffer(content[352:], np.float32).reshape(SHAPE, order="F")
    assert np.array_equal(read_values(load_series(tmp_path / name), name), expected)


def test_damage_within_a_file(tmp_path, content):
    packed = gzip.compress(content)
    (tmp_path / "s.nii.gz").write_bytes(packed[: len(packed) // 2])
    image = load_series(tmp_path / "s.nii.gz")
    with pytest.raises(ValueError, match=r"s\.nii\.gz is damaged after TR 8 .*: copy it again"):
        read_values(image, "s.nii.gz", slice(8, 30))


INSIDE = np.arange(120).reshape(5, 6, 4) % 3 == 0
MASKS = {
    "uint8": INSIDE.astype(np.uint8),
    "255": INSIDE * 255.0,
    "minus": INSIDE * -1.0,
    "NaN": np.where(INSIDE, 1.0, np.nan),
    "rounding": INSIDE * (1 + 1e-9 * np.arange(120).reshape(5, 6, 4)),
    "one volume": INSIDE[..., None].astype(np.int16),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks(tmp_path, kind):
    image = nib.Nifti1Image(MASKS[kind], AFFINE)
    assert np.array_equal(mask_voxels(image), INSIDE)
    nib.save(image, tmp_path / "m.nii.gz")
    loaded = load_mask(tmp_path / "m.nii.gz")
    assert np.array_equal(np.asarray(loaded.dataobj), INSIDE)
    assert np.array_equal(loaded.affine, AFFINE)


def test_mask_of_scaled_integers(tmp_path):
    image = nib.Nifti1Image(INSIDE * 0.3, AFFINE)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "m.nii.gz")
    assert np.array_equal(mask_voxels(load_image(tmp_path / "m.nii.gz")), INSIDE)


NO_MASKS = {
    "probabilities": (np.linspace(0, 1, 120).reshape(5, 6, 4), "has 119 values besides 0, from"),
    "labels": (INSIDE * np.arange(4, dtype=np.int16), r"has 3 values besides 0, from 1 to 3"),
    "both signs": (np.where(INSIDE, 1, -1).astype(np.int8), "has 2 values besides 0"),
    "empty": (np.zeros((5, 6, 4)), "is 0 everywhere"),
    "NaN": (np.full((5, 6, 4), np.nan), "is 0 everywhere"),
    "infinite": (np.where(INSIDE, np.inf, 0), "is 0 everywhere or infinite somewhere"),
    "two volumes": (np.ones((5, 6, 4, 2), np.uint8), r"has shape \(5, 6, 4, 2\), expected 3-D"),
    "plane": (np.ones((5, 6), np.uint8), r"has shape \(5, 6\)"),
    "complex": (INSIDE * 1j, "holds complex128 values"),
    "RGB": (np.zeros((5, 6, 4), [(c, "u1") for c in "RGB"]), "holds RGB values"),
}


@pytest.mark.parametrize("kind", NO_MASKS)
def test_no_masks(tmp_path, kind):
    values, message = NO_MASKS[kind]
    image = nib.Nifti1Image(values, AFFINE)
    with pytest.raises(ValueError, match=f"^mask_img {message}"):
        mask_voxels(image)
    nib.save(image, tmp_path / "m.nii")
    with pytest.raises(ValueError, match=rf"m\.nii {message}"):
        load_mask(tmp_path / "m.nii")


def test_images_in_memory_need_a_place():
    with pytest.raises(ValueError, match="mask_img has no orientation"):
        mask_voxels(nib.Nifti1Image(INSIDE.astype(np.uint8), None))
    with pytest.raises(ValueError, match="mask_img is a str, expected a nibabel image"):
        mask_voxels("mask.nii.gz")


@pytest.mark.parametrize("axes", ["RAS", "LAS", "PIR"])
def test_order_of_axes_is_what_the_affine_says(axes):
    image = nib.Nifti1Image(INSIDE.astype(np.uint8), AFFINE)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axes)
    )
    turned = image.as_reoriented(turn)
    found = nib.affines.apply_affine(turned.affine, np.argwhere(mask_voxels(turned)))
    expected = nib.affines.apply_affine(AFFINE, np.argwhere(INSIDE))
    assert sorted(map(tuple, found)) == sorted(map(tuple, expected))
