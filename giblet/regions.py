"""Named regions of the brain mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine
from nilearn import datasets, image
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from giblet.data import MultimodalDataset

N_PARCELS = 1000  # arrays of more columns are voxels, and no region each
BACKGROUND = "background"


def check_mask(mask_img) -> None:
    """Say in a sentence that a data set of arrays has no mask."""
    if mask_img is None:
        raise ValueError(
            "these data have no mask_img, which says where voxels lie: give it to from_arrays."
        )


def voxel_coordinates(mask_img) -> np.ndarray:
    """Centre of each voxel of a mask in mm: (n_voxels, 3)."""
    check_mask(mask_img)
    return apply_affine(mask_img.affine, np.argwhere(np.asarray(mask_img.dataobj) > 0))


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
        """Mean over each region's voxels: (..., n_voxels) -> (..., n_regions).

        NaN voxels are left out.
        """
        values = np.asarray(values)
        values = values if np.issubdtype(values.dtype, np.floating) else values.astype(float)
        finite = np.isfinite(values)
        member = (
            np.eye(len(self.names), dtype=values.dtype)[self.labels] * (self.labels >= 0)[:, None]
        )
        with np.errstate(invalid="ignore"):  # a region without a finite voxel is NaN
            return (np.where(finite, values, 0) @ member) / (finite.astype(values.dtype) @ member)

    @property
    def sizes(self) -> np.ndarray:
        """Number of voxels of each region: (n_regions,)."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.names))

    def largest(self, n: int) -> list[str]:
        """Names of the `n` regions with most voxels, the largest first."""
        order = np.argsort(-self.sizes, kind="stable")
        return [self.names[index] for index in order[:n]]


def regions_of(dataset: "MultimodalDataset") -> Regions:
    """The regions of a data set: those that it names, else the networks of `seitzman_networks`.

    A folder names them in `dataset.toml` (`regions`, `region_names`), arrays in
    `from_arrays(regions=...)`. Without names and a mask each column of fMRI is a parcel of its own,
    up to 1,000 of them.
    """
    n_voxels = dataset.model_dims["n_voxels"]
    if dataset.region_names is not None:
        names = tuple(dict.fromkeys(name for name in dataset.region_names if name))
        return Regions(
            np.array([names.index(name) if name else -1 for name in dataset.region_names]), names
        )
    if dataset.region_labels is not None:
        labels_img, label_names = dataset.region_labels
        return label_regions(labels_img, label_names, dataset.mask_img)
    if dataset.mask_img is not None:
        return seitzman_networks(dataset.mask_img)
    if n_voxels > N_PARCELS:
        raise ValueError(
            f"nothing says which regions {n_voxels} voxels belong to: give from_arrays regions or "
            "mask_img."
        )
    return Regions(np.arange(n_voxels), tuple(f"parcel {index + 1}" for index in range(n_voxels)))


def sphere(mask_img, centre_mm: Sequence[float], radius_mm: float) -> np.ndarray:
    """Voxels within a distance of a point in MNI space, (n_voxels,) bool."""
    inside = (
        np.linalg.norm(voxel_coordinates(mask_img) - np.asarray(centre_mm, float), axis=1)
        <= radius_mm
    )
    if not inside.any():
        raise ValueError(
            f"no voxel of the mask lies within {radius_mm} mm of {tuple(centre_mm)}: mend one of "
            "the two."
        )
    return inside


def lesion_mask(lesion_img, mask_img) -> np.ndarray:
    """Voxels of a mask that lie in a lesion: (n_voxels,) bool.

    The lesion is an image or file on any grid in MNI space.
    """
    return (
        label_regions(image.math_img("img > 0", img=lesion_img), {1: "lesion"}, mask_img).labels
        == 0
    )


def seitzman_networks(mask_img, radius_mm: float = 10.0) -> Regions:
    """Functional networks grown from 300 regions.

    Seitzman et al. (2020, doi 10.1016/j.neuroimage.2019.116290).

    Every voxel of `mask_img` within `radius_mm` of a region's centre takes the network of the
    nearest one. The coordinates come with nilearn, so nothing is downloaded. 'unassigned' regions
    are left out.
    """
    check_mask(mask_img)
    atlas = datasets.fetch_coords_seitzman_2018()
    networks = np.asarray(atlas["networks"])
    names = tuple(sorted(set(networks) - {"unassigned"}))
    voxels = voxel_coordinates(mask_img)
    centres = atlas["rois"][["x", "y", "z"]].to_numpy(dtype=float)
    distance, nearest = cKDTree(centres).query(voxels)
    index = np.array([names.index(n) if n in names else -1 for n in networks])
    return Regions(np.where(distance <= radius_mm, index[nearest], -1), names)


def label_regions(
    labels_img, names: Mapping[int, str] | Sequence[str] | str | Path, mask_img
) -> Regions:
    """Regions of any label image.

    Every voxel of `mask_img` takes the label that lies at its centre.

    Parameters
    ----------
    labels_img : image or file
        Integers, in the same space as the mask, on any grid; 0 is no region.
    names : mapping of label to name, sequence of names, or file
        A sequence names labels 1, 2, ..., or 0, 1, ... if it begins with 'Background', as nilearn's
        atlases have it; () names every label by its number. A file is a BIDS table with the columns
        `index` and `name` (.tsv). Labels of the same name are one region, and labels that are not
        named are none.

    Raises
    ------
    ValueError
        Where a label named by a mapping does not occur within the mask; others are left out, and
        counted in a line.
    """
    check_mask(mask_img)
    resampled = image.resample_to_img(
        labels_img, mask_img, interpolation="nearest", force_resample=True, copy_header=True
    )
    labels = np.asarray(resampled.dataobj)[np.asarray(mask_img.dataobj) > 0].round().astype(int)
    named = _label_names(names, labels)
    found = {named[label] for label in np.unique(labels).tolist() if label in named}
    missing = [name for name in dict.fromkeys(named.values()) if name not in found]
    if missing and (isinstance(names, Mapping) or not found):
        raise ValueError(
            f"labels_img has no voxel of {', '.join(map(repr, missing))} within the mask: leave "
            "them out."
        )
    if missing:
        print(f"regions without a voxel in the mask, left out: {', '.join(missing)}")
    kept = tuple(dict.fromkeys(name for name in named.values() if name not in missing))
    position = {label: kept.index(name) for label, name in named.items() if name in kept}
    return Regions(np.array([position.get(label, -1) for label in labels]), kept)


def _label_names(
    names: Mapping[int, str] | Sequence[str] | str | Path, labels: np.ndarray
) -> dict[int, str]:
    if isinstance(names, Mapping):
        return dict(names)
    if isinstance(names, str | Path):
        table = pd.read_csv(names, sep="\t")
        if not {"index", "name"} <= set(table):
            raise ValueError(
                f"{names} has the columns {', '.join(table)}, expected index and name, "
                "tab-separated."
            )
        return {
            int(label): str(name)
            for label, name in zip(table["index"], table["name"], strict=True)
            if label != 0
        }
    if len(names) == 0:
        return {int(label): f"region {label}" for label in np.unique(labels) if label > 0}
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    first = 0 if names[0].lower() == BACKGROUND else 1
    return {
        label: name for label, name in enumerate(names, start=first) if name.lower() != BACKGROUND
    }


def schaefer_parcels(mask_img, n_rois: int = 100) -> Regions:
    """Parcels of Schaefer et al. (2018, doi 10.1093/cercor/bhx179).

    nilearn fetches them from the internet once.
    """
    atlas = datasets.fetch_atlas_schaefer_2018(n_rois=n_rois)
    return label_regions(atlas.maps, atlas.labels, mask_img)
