"""Brains: NIfTI -> voxels by TR, and voxels -> NIfTI."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_brain_mask
from nilearn.image import resample_img
from nilearn.masking import unmask
from scipy.ndimage import distance_transform_edt

from giblet.data.features import BLOCK_TRS, loses_in_float32, run_statistics
from giblet.data.volumes import Volumes
from giblet.files import atomic_path
from giblet.images import check_end, load_series, mask_voxels, read_values

MARGIN_MM = 6.0
N_NAMED = 3  # TRs that a sentence names


@dataclass(frozen=True)
class Scan:
    """Which parts of one subject's series can be used.

    `trs` is (n_trs,) bool, `voxels` (n_voxels,) bool.

    `mean` and `sd` (n_runs, n_voxels) are those that z-score each run. `left_out` has the TRs that
    cannot be used, (n_trs,) bool, by what they do.
    """

    trs: np.ndarray
    voxels: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    left_out: dict[str, np.ndarray]

    def sentences(self, name: str) -> list[str]:
        """What was left out of a series, a sentence for each reason; TRs are counted from 0."""
        said = []
        for reason, trs in self.left_out.items():
            rows = np.flatnonzero(trs)
            if len(rows) > 0:
                first = ", ".join(map(str, rows[:N_NAMED]))
                more = ", ..." if len(rows) > N_NAMED else ""
                said.append(f"{name}: {len(rows)} TRs that {reason} are left out: {first}{more}")
        return said


def template_mask(image) -> nib.Nifti1Image:
    """Voxels of an MNI-space image within 6 mm of the MNI152 brain mask.

    That is more than any subject's brain fills.
    """
    brain = load_mni152_brain_mask(resolution=2)
    distance = distance_transform_edt(np.asarray(brain.dataobj) == 0, sampling=2.0).astype(
        np.float32
    )
    near = resample_img(
        nib.Nifti1Image(distance, brain.affine),
        image.affine,
        image.shape[:3],
        "linear",
        fill_value=2 * MARGIN_MM,
    )
    return nib.Nifti1Image((near.get_fdata() <= MARGIN_MM).astype(np.uint8), image.affine)


@dataclass(frozen=True)
class FMRIProcessor:
    """Voxels of a mask, z-scored within each run by its training TRs.

    Parameters
    ----------
    tr : float
        Repetition time in seconds; the header's is not believed.
    mask_img : image, optional
        Voxels of `features_to_nifti`; `MultimodalDataset` fills it in.
    """

    tr: float = 1.5
    mask_img: nib.Nifti1Image | None = field(default=None, repr=False, compare=False)

    def blocks(self, path: str | Path, mask_img, n_trs: int) -> Iterator[np.ndarray]:
        """Read one subject's series through one open handle, in blocks.

        Blocks are (n_block, n_voxels) in the data type of the file, voxels of the mask.

        Raises
        ------
        FileNotFoundError, ValueError
            Where the file is no 4-D NIfTI of `n_trs` TRs on the grid of the mask, see
            `giblet.images.load_series`.
        """
        image = load_series(path)
        mask = mask_voxels(mask_img)
        _check_grid(image, mask_img, path)
        if image.shape[3] != n_trs:
            raise ValueError(
                f"{path} has {image.shape[3]} TRs, expected {n_trs}: mend run_trs in dataset.toml."
            )
        for start in range(0, n_trs, BLOCK_TRS):
            block = read_values(image, path, slice(start, start + BLOCK_TRS))
            yield np.ascontiguousarray(block[mask].T)
        check_end(image, path)

    def scan(
        self,
        paths: Sequence[Path],
        mask_img,
        runs: list[slice],
        train: np.ndarray,
        raw: Path,
        tick: Callable,
    ) -> Scan:
        """Copy one subject's series to `raw` and find what of it can be used.

        `raw` is a .npy (n_trs, n_voxels), float32, or float64 where float32 would round the signal
        away.

        A TR cannot be used if no voxel is finite in it, if it repeats a neighbour in every voxel,
        or if it is unlike the other TRs of its run, see `Volumes`. A voxel cannot be used if it is
        not finite in a usable TR, or does not vary over the usable training TRs of a run (in a run
        without training TRs: over all its usable TRs).

        Parameters
        ----------
        paths : sequence of Path
            One series of all runs, or one a run.
        runs : list of slice
            TRs of each run.
        train : (n_trs,) bool
            Training TRs, in the file's own TRs.
        """
        volumes = Volumes()
        lengths = [len(train)] if len(paths) == 1 else [run.stop - run.start for run in runs]
        series = list(zip(paths, lengths, strict=True))
        first, *others = (next(self.blocks(path, mask_img, n)) for path, n in series)
        dtype = "<f8" if any(map(loses_in_float32, (first, *others))) else "<f4"
        blocks = chain.from_iterable(self.blocks(path, mask_img, n) for path, n in series)
        with npy_writer(raw, (len(train), first.shape[1]), dtype) as write:
            for block in blocks:
                volumes.add(block)
                with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
                    write(block.astype(dtype, copy=False))
                tick(len(block))
        left_out = volumes.left_out(runs)
        trs = ~np.any(list(left_out.values()), axis=0)
        if not trs.any():
            raise ValueError(
                f"{paths[0]} holds no TR with finite, changing values: leave the subject out or "
                "mend the file."
            )
        return self._voxels(raw, runs, trs, train, left_out)

    @staticmethod
    def _voxels(
        raw: Path,
        runs: list[slice],
        trs: np.ndarray,
        train: np.ndarray,
        left_out: dict[str, np.ndarray],
    ) -> Scan:
        """Mean and SD of each run's usable training TRs, in float64, and the voxels that vary."""
        bold = np.load(raw, mmap_mode="r")
        mean, sd = np.zeros((2, len(runs), bold.shape[1]))
        voxels = np.ones(bold.shape[1], bool)
        for index, run in enumerate(runs):
            mean[index], sd[index], varying = run_statistics(bold[run], trs[run], train[run])
            voxels &= varying
        return Scan(trs, voxels, mean, sd, left_out)

    def features_to_nifti(self, features, path: str | Path) -> None:
        """Write (n_trs, n_voxels) values as a 4-D NIfTI, or (n_voxels,) as a 3-D one.

        Values are 0 outside the mask.
        """
        if self.mask_img is None:
            raise ValueError(
                "this processor has no mask_img: take `fmri_processor` of a MultimodalDataset."
            )
        features = np.asarray(features, np.float32)
        mask = mask_voxels(self.mask_img)
        if features.ndim not in (1, 2) or features.shape[-1] != mask.sum():
            raise ValueError(
                f"features have shape {features.shape}, expected (n_trs, {mask.sum()}) or "
                f"({mask.sum()},)."
            )
        image = unmask(features, self.mask_img)
        if features.ndim == 2:
            image.header.set_zooms((*image.header.get_zooms()[:3], self.tr))
        with atomic_path(path) as temporary:
            nib.save(image, temporary)


def _check_grid(image, mask_img, path: str | Path) -> None:
    """Refuse a series on another grid than that of the mask."""
    shape = mask_img.shape[:3]
    if image.shape[:3] == shape and np.allclose(image.affine, mask_img.affine, atol=1e-3):
        return
    remedy = "resample one to the other"
    if np.array_equal(*(_canonical(i)[0] for i in (image, mask_img))) and np.allclose(
        *(_canonical(i)[1] for i in (image, mask_img)), atol=1e-3
    ):
        axes = ["".join(nib.aff2axcodes(i.affine)) for i in (image, mask_img)]
        remedy = (
            f"only the order and direction of axes differ ({axes[0]} and {axes[1]}), so reorient "
            "one, for instance with `nibabel.as_closest_canonical`"
        )
    raise ValueError(
        f"{path} lies on another grid than the mask, {image.shape[:3]} with affine "
        f"{image.affine.tolist()}, expected {shape} with {mask_img.affine.tolist()}: {remedy}."
    )


def _canonical(image) -> tuple[np.ndarray, np.ndarray]:
    """Shape and affine that an image has with its axes in the order right, anterior, superior."""
    orientation = nib.io_orientation(image.affine)
    order = np.argsort(orientation[:, 0])
    flips = nib.orientations.inv_ornt_aff(orientation, image.shape[:3])
    return np.array(image.shape[:3])[order], image.affine @ flips


@contextmanager
def npy_writer(
    path: Path, shape: tuple[int, ...], dtype: str = "<f4"
) -> Iterator[Callable[[np.ndarray], int]]:
    """Yield a function that appends arrays to a .npy of a known shape.

    The array is never held in memory.
    """
    with path.open("wb") as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda array: file.write(np.ascontiguousarray(array, dtype).data)
