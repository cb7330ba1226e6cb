"""Values of voxels as images and files."""

from pathlib import Path

import numpy as np
from nilearn.datasets import load_fsaverage
from nilearn.image import new_img_like
from nilearn.masking import unmask
from nilearn.surface import SurfaceImage

from giblet.files import atomic_folder, atomic_path
from giblet.images import check_mask, mask_voxels


def voxel_image(values: np.ndarray, mask_img, background: float = 0.0):
    """(n_voxels,) values as a NIfTI image; `background` outside the mask and where they are NaN."""
    check_mask(mask_img)
    mask = mask_voxels(mask_img)
    values = np.nan_to_num(np.asarray(values, np.float32), nan=background)
    image = unmask(values, new_img_like(mask_img, mask))
    if background == 0:
        return image
    return new_img_like(image, np.where(mask, image.dataobj, np.float32(background)))


def save_map(values: np.ndarray, mask_img, path: str | Path, background: float = 0.0) -> None:
    """Write (n_voxels,) values as a NIfTI file, or on fsaverage5 as a folder of GIFTI files.

    Parameters
    ----------
    background : float
        As in `voxel_image`: 1 for maps of p or q.
    path : ending in .nii or .nii.gz, or a new folder
        The folder gets `map_hemi-L.gii` and `map_hemi-R.gii`, one value per vertex of fsaverage5.
    """
    path = Path(path)
    image = voxel_image(values, mask_img, background)
    if path.name.endswith((".nii", ".nii.gz")):
        with atomic_path(path) as temporary:
            image.to_filename(temporary)
        return
    if path.suffix or path.exists():
        raise ValueError(
            f"path is {path}, expected a name that ends in .nii or .nii.gz, or that of a new "
            "folder."
        )
    surface = SurfaceImage.from_volume(load_fsaverage("fsaverage5")["pial"], image)
    for hemi, part in surface.data.parts.items():
        surface.data.parts[hemi] = part.astype(np.float32)
    with atomic_folder(path) as temporary:
        surface.data.to_filename(temporary / "map.gii")
