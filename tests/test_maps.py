import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_fsaverage, load_mni152_brain_mask
from nilearn.surface import vol_to_surf

from giblet.maps import save_map, voxel_image
from giblet.regions import seitzman_networks


@pytest.fixture(scope="module")
def mask_img():
    return load_mni152_brain_mask(resolution=8)


@pytest.fixture(scope="module")
def visual(mask_img) -> np.ndarray:
    return np.where(seitzman_networks(mask_img).voxels("Visual"), 0.5, 0.1)


@pytest.mark.parametrize("background", [0.0, 1.0])
def test_values_return_to_their_voxels(mask_img, background):
    mask = np.asarray(mask_img.dataobj) > 0
    values = np.arange(mask.sum(), dtype=float)
    values[3] = np.nan
    image = voxel_image(values, mask_img, background)
    assert np.array_equal(image.affine, mask_img.affine)
    expected = np.nan_to_num(values, nan=background).astype(np.float32)
    assert np.array_equal(np.asarray(image.dataobj)[mask], expected)
    assert np.all(np.asarray(image.dataobj)[~mask] == background)


def test_arrays_without_a_mask_have_no_image():
    with pytest.raises(ValueError, match="these data have no mask_img"):
        voxel_image(np.zeros(3), None)


def test_nifti_returns_the_values(mask_img, visual, tmp_path):
    save_map(visual, mask_img, tmp_path / "map.nii.gz")
    image = nib.load(tmp_path / "map.nii.gz")
    assert np.array_equal(image.affine, mask_img.affine)
    assert np.allclose(image.get_fdata()[np.asarray(mask_img.dataobj) > 0], visual)


def test_gifti_holds_the_surface(mask_img, visual, tmp_path):
    save_map(visual, mask_img, tmp_path / "map")
    for hemi in ("left", "right"):
        file = tmp_path / f"map/map_hemi-{hemi[0].upper()}.gii"
        values = nib.load(file).darrays[0].data
        pial = load_fsaverage("fsaverage5")["pial"].parts[hemi]
        expected = vol_to_surf(voxel_image(visual, mask_img), pial)
        assert np.allclose(values, expected, equal_nan=True)
        assert values.max() > 0.4


def test_name_of_no_kind(mask_img, visual, tmp_path):
    with pytest.raises(
        ValueError, match=r"map\.png, expected a name that ends in \.nii or \.nii\.gz"
    ):
        save_map(visual, mask_img, tmp_path / "map.png")
    assert not list(tmp_path.iterdir())
