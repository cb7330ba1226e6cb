"""Named regions of the brain mask."""

from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from nilearn import datasets
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Regions:
    """A partition of the mask's voxels: `labels` (n_voxels,) indexes `names`, -1 is no region."""

    labels: np.ndarray
    names: tuple[str, ...]

    def voxels(self, name: str) -> np.ndarray:
        """Boolean (n_voxels,) of the region called `name`."""
        if name not in self.names:
            raise ValueError(f"region is {name!r}, expected one of {', '.join(self.names)}.")
        return self.labels == self.names.index(name)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean over each region's voxels: (..., n_voxels) -> (..., n_regions); NaN voxels are left out."""
        values = np.asarray(values)
        finite = np.isfinite(values)
        member = np.eye(len(self.names), dtype=values.dtype)[self.labels] * (self.labels >= 0)[:, None]
        with np.errstate(invalid="ignore"):  # a region without a finite voxel is NaN
            return (np.where(finite, values, 0) @ member) / (finite.astype(values.dtype) @ member)


def seitzman_networks(mask_img, radius_mm: float = 10.0) -> Regions:
    """Functional networks grown from the 300 regions of Seitzman et al. (2020, doi 10.1016/j.neuroimage.2019.116290).

    Every voxel of `mask_img` within `radius_mm` of a region's centre takes the network of the nearest
    one. The coordinates come with nilearn, so nothing is downloaded. 'unassigned' regions are left out.
    """
    atlas = datasets.fetch_coords_seitzman_2018()
    networks = np.asarray(atlas["networks"])
    names = tuple(sorted(set(networks) - {"unassigned"}))
    voxels = apply_affine(mask_img.affine, np.argwhere(np.asarray(mask_img.dataobj)))
    centres = atlas["rois"][["x", "y", "z"]].to_numpy(dtype=float)
    distance, nearest = cKDTree(centres).query(voxels)
    index = np.array([names.index(n) if n in names else -1 for n in networks])
    return Regions(np.where(distance <= radius_mm, index[nearest], -1), names)
