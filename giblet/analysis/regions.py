"""Named regions of the brain mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from nilearn import datasets, image
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
        values = values if np.issubdtype(values.dtype, np.floating) else values.astype(float)
        finite = np.isfinite(values)
        member = np.eye(len(self.names), dtype=values.dtype)[self.labels] * (self.labels >= 0)[:, None]
        with np.errstate(invalid="ignore"):  # a region without a finite voxel is NaN
            return (np.where(finite, values, 0) @ member) / (finite.astype(values.dtype) @ member)


def voxel_coordinates(mask_img) -> np.ndarray:
    """Centre of each voxel of a mask in mm: (n_voxels, 3)."""
    return apply_affine(mask_img.affine, np.argwhere(np.asarray(mask_img.dataobj)))


def sphere(mask_img, centre_mm: Sequence[float], radius_mm: float) -> np.ndarray:
    """Voxels within a distance of a point in MNI space, (n_voxels,) bool."""
    inside = np.linalg.norm(voxel_coordinates(mask_img) - np.asarray(centre_mm, float), axis=1) <= radius_mm
    if not inside.any():
        raise ValueError(f"no voxel of the mask lies within {radius_mm} mm of {tuple(centre_mm)}: mend one of the two.")
    return inside


def lesion_mask(lesion_img, mask_img) -> np.ndarray:
    """Voxels of a mask that lie in a lesion, an image or file on any grid in MNI space: (n_voxels,) bool."""
    return label_regions(image.math_img("img > 0", img=lesion_img), {1: "lesion"}, mask_img).labels == 0


def seitzman_networks(mask_img, radius_mm: float = 10.0) -> Regions:
    """Functional networks grown from the 300 regions of Seitzman et al. (2020, doi 10.1016/j.neuroimage.2019.116290).

    Every voxel of `mask_img` within `radius_mm` of a region's centre takes the network of the nearest
    one. The coordinates come with nilearn, so nothing is downloaded. 'unassigned' regions are left out.
    """
    atlas = datasets.fetch_coords_seitzman_2018()
    networks = np.asarray(atlas["networks"])
    names = tuple(sorted(set(networks) - {"unassigned"}))
    voxels = voxel_coordinates(mask_img)
    centres = atlas["rois"][["x", "y", "z"]].to_numpy(dtype=float)
    distance, nearest = cKDTree(centres).query(voxels)
    index = np.array([names.index(n) if n in names else -1 for n in networks])
    return Regions(np.where(distance <= radius_mm, index[nearest], -1), names)


def label_regions(labels_img, names: Mapping[int, str], mask_img) -> Regions:
    """Regions of any label image: every voxel of `mask_img` takes the label that lies at its centre.

    Parameters
    ----------
    labels_img : image or file
        Integers, in the same space as the mask, on any grid; 0 is no region.
    names : mapping of label to name
        Labels that are not in it are no region.

    Raises
    ------
    ValueError
        Where a named label does not occur within the mask.
    """
    resampled = image.resample_to_img(
        labels_img, mask_img, interpolation="nearest", force_resample=True, copy_header=True
    )
    labels = np.asarray(resampled.dataobj)[np.asarray(mask_img.dataobj) > 0].round().astype(int)
    if missing := [name for label, name in names.items() if label not in labels]:
        raise ValueError(f"labels_img has no voxel of {', '.join(map(repr, missing))} within the mask: leave them out.")
    position = {label: index for index, label in enumerate(names)}
    return Regions(np.array([position.get(label, -1) for label in labels]), tuple(names.values()))


def schaefer_parcels(mask_img, n_rois: int = 100) -> Regions:
    """Parcels of Schaefer et al. (2018, doi 10.1093/cercor/bhx179), which nilearn fetches from the internet once."""
    atlas = datasets.fetch_atlas_schaefer_2018(n_rois=n_rois)
    names = [name.decode() if isinstance(name, bytes) else name for name in atlas.labels if name != "Background"]
    return label_regions(atlas.maps, dict(enumerate(names, start=1)), mask_img)
