import csv

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from nilearn.datasets import fetch_coords_seitzman_2018, load_mni152_brain_mask
from nilearn.image import new_img_like
from sklearn.utils import Bunch

from giblet.regions import (
    Regions,
    label_regions,
    lesion_mask,
    schaefer_parcels,
    seitzman_networks,
    sphere,
    voxel_coordinates,
)


@pytest.fixture(scope="module")
def mask_img():
    return load_mni152_brain_mask(resolution=12)


@pytest.mark.parametrize("radius_mm", [6.0, 10.0])
def test_networks_against_every_distance(mask_img, radius_mm):
    regions = seitzman_networks(mask_img, radius_mm)
    atlas = fetch_coords_seitzman_2018()
    mask = np.asarray(mask_img.dataobj) > 0
    voxels = (mask_img.affine @ np.c_[np.argwhere(mask), np.ones(mask.sum())].T)[:3].T
    distance = np.linalg.norm(
        voxels[:, None] - np.asarray(atlas["rois"][["x", "y", "z"]].to_numpy(float)), axis=-1
    )
    nearest = np.asarray(atlas["networks"])[distance.argmin(1)]
    near = (distance.min(1) <= radius_mm) & (nearest != "unassigned")
    found = np.array([regions.names[label] if label >= 0 else "" for label in regions.labels])
    assert np.array_equal(found, np.where(near, nearest, ""))


def test_networks_have_names(mask_img):
    names = seitzman_networks(mask_img).names
    assert {"Visual", "Auditory", "DefaultMode", "DorsalAttention"} < set(names)
    assert "unassigned" not in names


def test_mean_against_a_loop(rng):
    regions = Regions(rng.integers(-1, 3, 40), ("a", "b", "c"))
    values = rng.standard_normal((5, 40))
    values[:, 7] = np.nan
    expected = np.stack(
        [np.nanmean(values[:, regions.labels == index], axis=1) for index in range(3)], axis=1
    )
    assert np.allclose(regions.mean(values), expected)
    assert np.allclose(regions.mean(values[0]), expected[0])


def test_region_without_voxels_has_no_mean():
    assert np.isnan(Regions(np.array([0, 0, -1]), ("a", "b")).mean(np.ones(3))[1])


def test_unknown_region():
    with pytest.raises(ValueError, match="region is 'Motor', expected one of a, b"):
        Regions(np.array([0, 1]), ("a", "b")).voxels("Motor")


def test_label_image_against_the_voxel_at_each_centre(mask_img, rng):
    """A finer grid of labels, read at the centre of every voxel of the mask."""
    fine = load_mni152_brain_mask(resolution=4)
    labels = rng.integers(0, 4, fine.shape).astype(np.int32)
    regions = label_regions(new_img_like(fine, labels), {1: "one", 3: "three"}, mask_img)
    voxels = np.argwhere(np.asarray(mask_img.dataobj) > 0)
    centres = apply_affine(np.linalg.inv(fine.affine) @ mask_img.affine, voxels)
    at = labels[tuple(np.round(centres).astype(int).T)]
    between = (
        np.abs(centres - np.round(centres)).max(1) > 0.49
    )  # as near to one voxel as to the next
    expected = np.select([at == 1, at == 3], [0, 1], -1)
    assert regions.names == ("one", "three")
    assert np.array_equal(regions.labels[~between], expected[~between])
    assert (~between).sum() > 100


def test_label_that_is_nowhere(mask_img):
    labels = new_img_like(mask_img, np.ones(mask_img.shape, np.int32))
    with pytest.raises(ValueError, match=r"no voxel of 'two' within the mask: leave them out"):
        label_regions(labels, {1: "one", 2: "two"}, mask_img)


@pytest.fixture
def halves(mask_img):
    """Label 1 on the left, 2 on the right; 3 is nowhere."""
    labels = np.ones(mask_img.shape, np.int32)
    labels[: labels.shape[0] // 2] = 2
    return new_img_like(mask_img, labels)


@pytest.mark.parametrize(
    "names",
    [
        ("left", "right"),
        ["Background", b"left", "right"],
        ("left", "right", "nowhere"),
        {1: "left", 2: "right"},
    ],
)
def test_names_as_nilearn_and_people_have_them(mask_img, halves, names, capsys):
    regions = label_regions(halves, names, mask_img)
    assert regions.names == ("left", "right")
    assert np.array_equal(
        regions.labels, label_regions(halves, {1: "left", 2: "right"}, mask_img).labels
    )
    assert ("left out: nowhere" in capsys.readouterr().out) == (
        len(names) == 3 and "nowhere" in names
    )


def test_names_from_a_table_and_from_numbers(mask_img, halves, tmp_path):
    (tmp_path / "atlas.tsv").write_text(
        "index\tname\tcolour\n0\tBackground\t-\n2\tright\tred\n1\tleft\tblue\n"
    )
    regions = label_regions(halves, tmp_path / "atlas.tsv", mask_img)
    assert regions.names == ("right", "left")
    assert label_regions(halves, (), mask_img).names == ("region 1", "region 2")
    assert label_regions(halves, ("all", "all"), mask_img).voxels("all").all()
    (tmp_path / "bad.tsv").write_text("label\tname\n1\tleft\n")
    with pytest.raises(
        ValueError, match=r"bad\.tsv has the columns label, name, expected index and name"
    ):
        label_regions(halves, tmp_path / "bad.tsv", mask_img)
    with pytest.raises(ValueError, match="no voxel of 'nowhere' within the mask"):
        label_regions(
            new_img_like(mask_img, np.zeros(mask_img.shape, np.int32)), ("nowhere",), mask_img
        )


TABLES = {
    "empty": (b"", "has the columns , expected index and name"),
    "commas": (b"index,name\n1,V1\n", "has the columns index,name, expected index and name"),
    "columns": (b"index\tlabel\n1\tV1\n", "has the columns index, label, expected"),
    "column twice": (b"index\tname\tname\n1\tV1\tV2\n", "has the columns index, name, name"),
    "short row": (b"index\tname\n1\n", "has 1 cells in row 2, expected 2"),
    "long row": (b"index\tname\n1\tV1\tV2\n", "has 3 cells in row 2, expected 2"),
    "word": (b"index\tname\none\tV1\n", "has the index 'one' and the name 'V1' in row 2"),
    "fraction": (b"index\tname\n1.5\tV1\n", "has the index '1.5'"),
    "no index": (b"index\tname\n\tV1\n", "has the index ''"),
    "no name": (b"index\tname\n1\t\n", "has the index '1' and the name '' in row 2"),
    "twice": (b"index\tname\n1\tV1\n2\tV2\n1\tV3\n", "has the index 1 twice, .* row 4"),
    "background": (b"index\tname\n0\tBackground\n", "names no label besides 0"),
    "quotes": (b'index\tname\n1\t"V1\n', "is no table"),
    "UTF-16": ("index\tname\n1\tV1\n".encode("utf-16"), "is UTF-16 or no text, expected UTF-8"),
    "Latin-1": ("index\tname\n1\tGyrus é\n".encode("latin-1"), "has the byte 0xe9"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_damaged_tables(mask_img, halves, tmp_path, kind):
    content, message = TABLES[kind]
    (tmp_path / "atlas.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"atlas\.tsv {message}") as found:
        label_regions(halves, tmp_path / "atlas.tsv", mask_img)
    assert type(found.value) is ValueError


def test_tables_that_are_read(mask_img, halves, tmp_path):
    """A byte order mark, Windows' line ends, whole numbers as floats, and names like NA."""
    table = 'index\tname\r\n0\tnull\r\n1.0\tNA\r\n\r\n2\t"right"\r\n'
    (tmp_path / "atlas.tsv").write_bytes(table.encode("utf-8-sig"))
    assert label_regions(halves, tmp_path / "atlas.tsv", mask_img).names == ("NA", "right")
    with pytest.raises(FileNotFoundError, match=r"none\.tsv is missing"):
        label_regions(halves, tmp_path / "none.tsv", mask_img)


def labels_of(mask_img, kind: str):
    left = np.zeros(mask_img.shape)
    left[: left.shape[0] // 2] = 1
    values, affine = {
        "fractions": (left / 2, mask_img.affine),
        "infinite": (np.where(left, np.inf, 0), mask_img.affine),
        "probabilities": (np.stack([left, 1 - left], axis=-1), mask_img.affine),
        "complex": (left * 1j, mask_img.affine),
        "no orientation": (left, None),
        "metres": (left, np.diag([3e-3, 3e-3, 3e-3, 1])),
    }[kind]
    return nib.Nifti1Image(values, affine)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("fractions", "holds the label 0.5, expected whole numbers"),
        ("infinite", "holds the label inf, expected whole numbers"),
        ("probabilities", "has shape .* expected 3-D"),
        ("complex", "holds complex128 values"),
        ("no orientation", "has no orientation"),
        ("metres", "has voxels of 0.003 x 0.003 x 0.003 mm"),
    ],
)
def test_label_images_that_are_none(mask_img, tmp_path, kind, message):
    image = labels_of(mask_img, kind)
    with pytest.raises(ValueError, match=f"^labels_img {message}"):
        label_regions(image, (), mask_img)
    nib.save(image, tmp_path / "atlas.nii.gz")
    with pytest.raises(ValueError, match=rf"atlas\.nii\.gz {message}"):
        label_regions(tmp_path / "atlas.nii.gz", (), mask_img)


def test_labels_of_any_type(mask_img, halves):
    expected = label_regions(halves, ("left", "right"), mask_img).labels
    values = np.asarray(halves.dataobj)
    outside = np.where(np.asarray(mask_img.dataobj) > 0, values, np.nan)
    for labels in (values.astype(np.float32), outside, values[..., None].astype(np.int16)):
        image = nib.Nifti1Image(labels, mask_img.affine)
        found = label_regions(image, ("left", "right"), mask_img)
        assert np.array_equal(found.labels, expected)


def test_lesions_have_one_value(mask_img, halves, tmp_path):
    with pytest.raises(ValueError, match=r"^lesion_img has 2 values besides 0, from 1 to 2"):
        lesion_mask(halves, mask_img)
    (tmp_path / "lesion.nii.gz").write_text("<html>")
    with pytest.raises(ValueError, match=r"lesion\.nii\.gz cannot be read as NIfTI, it is a web"):
        lesion_mask(tmp_path / "lesion.nii.gz", mask_img)
    with pytest.raises(FileNotFoundError, match=r"none\.nii is missing"):
        lesion_mask(str(tmp_path / "none.nii"), mask_img)


def test_masks_of_regions_have_one_value(mask_img, halves):
    for use in (voxel_coordinates, seitzman_networks, lambda m: label_regions(halves, (), m)):
        with pytest.raises(ValueError, match=r"^mask_img has 2 values besides 0"):
            use(halves)


def test_largest_regions():
    assert Regions(np.array([0, 1, 1, 2, 2, -1, -1, -1]), ("a", "b", "c")).largest(2) == ["b", "c"]


def test_schaefer_parcels_of_the_fetcher(mask_img, monkeypatch):
    labels = np.ones(mask_img.shape, np.int32)
    labels[: labels.shape[0] // 2] = 2
    atlas = Bunch(maps=new_img_like(mask_img, labels), labels=["Background", b"Vis_1", "Vis_2"])
    monkeypatch.setattr("nilearn.datasets.fetch_atlas_schaefer_2018", lambda n_rois: atlas)
    regions = schaefer_parcels(mask_img)
    assert regions.names == ("Vis_1", "Vis_2")
    assert set(regions.labels) == {0, 1}


def test_published_parcels(real_data):
    mask_img = load_mni152_brain_mask(resolution=3)
    with (real_data / "atlas/labels_schaefer_200.csv").open() as file:
        names = {
            int(row["index"]): row["name"]
            for row in csv.DictReader(file)
            if row["name"] != "Background"
        }
    regions = label_regions(real_data / "atlas/atlas_schaefer_200.nii.gz", names, mask_img)
    sizes = np.bincount(regions.labels[regions.labels >= 0])
    assert len(sizes) == 200
    assert sizes.min() > 10
    assert np.mean(regions.labels >= 0) > 0.4
    visual = seitzman_networks(mask_img).voxels("Visual") & (regions.labels >= 0)
    found = [regions.names[label] for label in regions.labels[visual]]
    assert np.mean(["_Vis_" in name for name in found]) > 0.6


def test_sphere_and_lesion_file(tmp_path):
    """A ball of 12 mm drawn at 3 mm is the sphere of 12 mm in voxels of 8 mm, but for its edge."""
    mask_img = load_mni152_brain_mask(resolution=8)
    inside = sphere(mask_img, (0, -80, 8), 12)
    where = voxel_coordinates(mask_img)
    assert np.array_equal(inside, ((where - (0, -80, 8)) ** 2).sum(1) <= 144)
    fine = load_mni152_brain_mask(resolution=3)
    volume = np.zeros(fine.shape, np.float32)
    volume[np.asarray(fine.dataobj) > 0] = sphere(fine, (0, -80, 8), 12)
    nib.save(nib.Nifti1Image(volume, fine.affine), tmp_path / "lesion.nii.gz")
    found = lesion_mask(tmp_path / "lesion.nii.gz", mask_img)
    distance = np.linalg.norm(where - (0, -80, 8), axis=1)
    assert found[distance < 9].all()
    assert not found[distance > 15].any()
    with pytest.raises(ValueError, match=r"no voxel of the mask lies within 5 mm of \(200, 0, 0\)"):
        sphere(mask_img, (200, 0, 0), 5)
