"""Brain masks: where the voxels of a data set lie."""

import numpy as np
from nibabel.affines import apply_affine


def check_mask(mask_img) -> None:
    """Say in a sentence that a data set of arrays has no mask."""
    if mask_img is None:
        raise ValueError("these data have no mask_img, which says where voxels lie: give it to from_arrays.")


def voxel_coordinates(mask_img) -> np.ndarray:
    """Centre of each voxel of a mask in mm: (n_voxels, 3)."""
    check_mask(mask_img)
    return apply_affine(mask_img.affine, np.argwhere(np.asarray(mask_img.dataobj) > 0))
