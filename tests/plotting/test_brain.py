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


def test_lesion_is_painted_where_it_is(brain):
    picture, mask_img = brain
    visual = seitzman_networks(mask_img).voxels("Visual")
    painted = picture.paint({(214, 39, 40): visual})
    red = (painted == (214, 39, 40)).all(-1)
    assert np.array_equal(red, (picture.voxel >= 0) & visual[picture.voxel])
    assert 0.01 < red.mean() < 0.3
    assert (picture.paint({}) == picture.shade[..., None]).all()
