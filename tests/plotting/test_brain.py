import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask

from giblet.plotting.brain import VIEWS, BrainPicture
from giblet.regions import seitzman_networks, voxel_coordinates


@pytest.fixture(scope="module")
def brain():
    mask_img = load_mni152_brain_mask(resolution=8)
    return BrainPicture(voxel_coordinates(mask_img), size=100), mask_img


def test_pixels_know_their_place(brain):
    """Left is left, lateral is outside, the back of the brain is where it belongs in each view."""
    picture, mask_img = brain
    where = voxel_coordinates(mask_img)
    for index, (hemi, side) in enumerate(VIEWS):
        view = picture.voxel[:, 100 * index : 100 * (index + 1)]
        rows, columns = np.nonzero(view >= 0)
        x, y, z = where[view[rows, columns]].T
        assert (np.sign(np.median(x)) == (1 if hemi == "right" else -1)) or side == "medial"
        assert np.corrcoef(rows, z)[0, 1] < -0.8
        front_is_left = (hemi == "left") == (side == "lateral")
        assert np.corrcoef(columns, y)[0, 1] * (-1 if front_is_left else 1) > 0.8
        lateral = np.abs(x).mean()
        assert lateral > 35 if side == "lateral" else lateral < 25


def test_pixels_of_voxels_are_where_these_are(brain):
    picture, mask_img = brain
    visual = seitzman_networks(mask_img).voxels("Visual")
    shown = picture.pixels(visual)
    assert np.array_equal(shown, (picture.voxel >= 0) & visual[picture.voxel])
    assert 0.01 < shown.mean() < 0.3
    assert not picture.pixels(np.zeros_like(visual)).any()


def test_picture_is_cut_to_the_brain(brain):
    """Every voxel that is shown lies on the brain; light makes its middle brighter than its rim."""
    picture, _ = brain
    inside = picture.shade > 0
    assert inside[picture.voxel >= 0].all()
    assert inside.any(1).all()
    assert 0.5 < inside.mean() < 0.9
    n_neighbours = sum(np.roll(inside, by, (0, 1)) for by in ((0, 3), (0, -3), (3, 0), (-3, 0)))
    rim = picture.shade[inside & (n_neighbours < 4)]
    assert picture.shade[n_neighbours == 4].mean() > 1.1 * rim.mean()
