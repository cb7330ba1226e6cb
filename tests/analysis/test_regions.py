import numpy as np
import pytest
from nilearn.datasets import fetch_coords_seitzman_2018, load_mni152_brain_mask

from giblet.analysis.regions import Regions, seitzman_networks


@pytest.fixture(scope="module")
def mask_img():
    return load_mni152_brain_mask(resolution=12)


@pytest.mark.parametrize("radius_mm", [6.0, 10.0])
def test_networks_against_every_distance(mask_img, radius_mm):
    regions, atlas = seitzman_networks(mask_img, radius_mm), fetch_coords_seitzman_2018()
    mask = np.asarray(mask_img.dataobj) > 0
    voxels = (mask_img.affine @ np.c_[np.argwhere(mask), np.ones(mask.sum())].T)[:3].T
    distance = np.linalg.norm(voxels[:, None] - np.asarray(atlas["rois"][["x", "y", "z"]].to_numpy(float)), axis=-1)
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
    expected = np.stack([np.nanmean(values[:, regions.labels == index], axis=1) for index in range(3)], axis=1)
    assert np.allclose(regions.mean(values), expected)
    assert np.allclose(regions.mean(values[0]), expected[0])


def test_region_without_voxels_has_no_mean():
    assert np.isnan(Regions(np.array([0, 0, -1]), ("a", "b")).mean(np.ones(3))[1])


def test_unknown_region():
    with pytest.raises(ValueError, match="region is 'Motor', expected one of a, b"):
        Regions(np.array([0, 1]), ("a", "b")).voxels("Motor")
