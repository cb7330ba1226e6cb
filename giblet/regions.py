"""Named regions of the brain mask."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nilearn import datasets, image
from scipy.spatial import cKDTree

from giblet.files import read_text
from giblet.images import (
    check_image,
    check_mask,
    load_image,
    mask_voxels,
    read_volume,
    voxel_coordinates,
)

if TYPE_CHECKING:
    from giblet.data import MultimodalDataset

N_PARCELS = 1000  # arrays of more columns are voxels, and no region each
N_PRESETS = 3  # regions that are lesions to begin with
BACKGROUND = "background"
FRACTION = 1e-3  # by which a label may differ from a whole number, as scaled integers do


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


def groups_of(dataset: "MultimodalDataset") -> np.ndarray:
    """Number of the region of each voxel, for choices that are shared in it: (n_voxels,) int.

    Voxels of no region are one more group; so are all voxels where nothing names regions.
    """
    n_voxels = dataset.model_dims["n_voxels"]
    named = (dataset.region_names, dataset.region_labels, dataset.mask_img)
    if n_voxels > N_PARCELS and all(names is None for names in named):
        return np.zeros(n_voxels, int)
    labels = regions_of(dataset).labels
    return np.unique(labels, return_inverse=True)[1]


def presets_of(dataset: "MultimodalDataset", regions: Regions) -> dict[str, np.ndarray]:
    """Lesions to begin with, by name: {name: (n_voxels,) bool}.

    Of simulated data those that take away a known part, see `planted_parts`. Otherwise the three
    largest regions: each as a whole and, where coordinates are known, its left half (x < 0 mm) and
    its right one.
    """
    if "voxels" in dataset.truth:
        return planted_parts(dataset)
    presets = {}
    for name in regions.largest(N_PRESETS):
        whole = regions.voxels(name)
        presets[name] = whole
        if dataset.coordinates is not None:
            is_left = dataset.coordinates[:, 0] < 0
            presets[f"left {name}"] = whole & is_left
            presets[f"right {name}"] = whole & ~is_left
    return {name: mask for name, mask in presets.items() if mask.any()}


def planted_parts(dataset: "MultimodalDataset") -> dict[str, np.ndarray]:
    """Voxels of simulated data by the part of the film that they follow: {name: (n_voxels,) bool}.

    The left Visual network sees the right half of the picture, its upper bank the lower half; low
    and high frequencies are those below 500 Hz and above 2 kHz.

    Raises
    ------
    ValueError
        If the data are not simulated.
    """
    if "voxels" not in dataset.truth:
        raise ValueError("the data are not simulated, so nothing is planted: give masks yourself.")
    seen, heard, meant = (
        {key: np.asarray(values) for key, values in dataset.truth["voxels"][name].items()}
        for name in ("Visual", "Auditory", "DefaultMode")
    )
    parts = {
        "left Visual": seen["voxel"][seen["x"] > 0.5],
        "right Visual": seen["voxel"][seen["x"] < 0.5],
        "upper bank": seen["voxel"][seen["y"] > 0.5],
        "lower bank": seen["voxel"][seen["y"] < 0.5],
        "Visual": seen["voxel"],
        "low frequencies": heard["voxel"][heard["hz"] < 500],
        "high frequencies": heard["voxel"][heard["hz"] > 2000],
        "Auditory": heard["voxel"],
        "DefaultMode": meant["voxel"],
    }
    masks = np.zeros((len(parts), dataset.model_dims["n_voxels"]), bool)
    for mask, voxels in zip(masks, parts.values(), strict=True):
        mask[voxels] = True
    return dict(zip(parts, masks, strict=True))


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

    The lesion is an image or file on any grid in MNI space, 0 outside and one other value inside.

    Raises
    ------
    FileNotFoundError, ValueError
        As `giblet.images.load_image` and `mask_voxels`, and where no voxel lies in it.
    """
    opened, name = _opened(lesion_img, "lesion_img")
    inside = image.new_img_like(opened, mask_voxels(opened, name).astype(np.int32))
    return label_regions(inside, {1: "lesion"}, mask_img).labels == 0


def seitzman_networks(mask_img, radius_mm: float = 10.0) -> Regions:
    """Functional networks grown from 300 regions.

    Seitzman et al. (2020, doi 10.1016/j.neuroimage.2019.116290).

    Every voxel of `mask_img` within `radius_mm` of a region's centre takes the network of the
    nearest one. The coordinates come with nilearn, so nothing is downloaded. 'unassigned' regions
    are left out.
    """
    check_mask(mask_img)
    centres, networks = _seitzman_regions()
    names = tuple(sorted(set(networks) - {"unassigned"}))
    voxels = voxel_coordinates(mask_img)
    distance, nearest = cKDTree(centres).query(voxels)
    index = np.array([names.index(n) if n in names else -1 for n in networks])
    return Regions(np.where(distance <= radius_mm, index[nearest], -1), names)


@cache
def _seitzman_regions() -> tuple[np.ndarray, np.ndarray]:
    """Centres in mm, (300, 3), and networks, (300,)."""
    atlas = datasets.fetch_coords_seitzman_2018()
    centres = atlas["rois"][["x", "y", "z"]].to_numpy(dtype=float)
    return centres, np.asarray(atlas["networks"])


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
    FileNotFoundError, ValueError
        Where a file is missing or damaged, the image holds other values than whole numbers, or a
        label named by a mapping does not occur within the mask; others are left out, and counted
        in a line.
    """
    check_mask(mask_img)
    resampled = image.resample_to_img(
        _whole_labels(*_opened(labels_img, "labels_img")),
        mask_img,
        interpolation="nearest",
        force_resample=True,
        copy_header=True,
    )
    labels = np.asarray(resampled.dataobj)[mask_voxels(mask_img)].round().astype(int)
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


def _opened(labels_img, argument: str):
    """An image or file as an image, and its name for errors."""
    if isinstance(labels_img, str | Path):
        path = Path(labels_img).expanduser()
        return load_image(path), path
    return labels_img, argument


def _whole_labels(labels_img, name: str | Path):
    """A label image in three dimensions; NaN is no region."""
    check_image(labels_img, name)
    labels = read_volume(labels_img, name)
    if labels.dtype.kind != "f":
        return labels_img if labels_img.ndim == 3 else image.new_img_like(labels_img, labels)
    labels = np.where(np.isnan(labels), 0, labels)
    whole = np.isfinite(labels) & np.isclose(labels, np.round(labels), rtol=0, atol=FRACTION)
    fractional = labels[~whole]
    if len(fractional) > 0:
        raise ValueError(
            f"{name} holds the label {fractional[0]:g}, expected whole numbers: give a label "
            "image, resampled to the nearest voxel and not smoothed."
        )
    return image.new_img_like(labels_img, np.round(labels))


def _label_names(
    names: Mapping[int, str] | Sequence[str] | str | Path, labels: np.ndarray
) -> dict[int, str]:
    if isinstance(names, Mapping):
        return dict(names)
    if isinstance(names, str | Path):
        return _read_names(Path(names).expanduser())
    if len(names) == 0:
        return {int(label): f"region {label}" for label in np.unique(labels) if label > 0}
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    first = 0 if names[0].lower() == BACKGROUND else 1
    return {
        label: name for label, name in enumerate(names, start=first) if name.lower() != BACKGROUND
    }


def _read_names(path: Path) -> dict[int, str]:
    """Names by label of a BIDS table."""
    reader = csv.reader(read_text(path).splitlines(), delimiter="\t", strict=True)
    try:
        header, *rows = [[cell.strip() for cell in row] for row in reader if row] or [[]]
    except csv.Error as error:
        raise ValueError(f"{path} is no table ({error}): mend its quotation marks.") from None
    if header.count("index") != 1 or header.count("name") != 1:
        raise ValueError(
            f"{path} has the columns {', '.join(header)}, expected index and name, tab-separated."
        )
    names = {}
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"{path} has {len(row)} cells in row {number}, expected {len(header)} as in its "
                "first row: mend the row."
            )
        cells = dict(zip(header, row, strict=True))
        if not re.fullmatch(r"[+-]?\d+(\.0*)?", cells["index"]) or not cells["name"]:
            raise ValueError(
                f"{path} has the index {cells['index']!r} and the name {cells['name']!r} in row "
                f"{number}, expected a whole number and a name: mend the row."
            )
        label = int(cells["index"].split(".")[0])
        if label in names:
            raise ValueError(
                f"{path} has the index {label} twice, expected each label once: mend row {number}."
            )
        names[label] = cells["name"]
    names.pop(0, None)
    if not names:
        raise ValueError(f"{path} names no label besides 0, expected one row per region: add them.")
    return names


def schaefer_parcels(mask_img, n_rois: int = 100) -> Regions:
    """Parcels of Schaefer et al. (2018, doi 10.1093/cercor/bhx179).

    nilearn fetches them from the internet once.
    """
    atlas = datasets.fetch_atlas_schaefer_2018(n_rois=n_rois)
    return label_regions(atlas.maps, atlas.labels, mask_img)
