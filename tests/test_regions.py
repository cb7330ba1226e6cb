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
