"""Brains: NIfTI -> voxels by TR, and voxels -> NIfTI."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_brain_mask
from nilearn.image import resample_img, smooth_img
from nilearn.masking import unmask
from scipy.ndimage import distance_transform_edt

from giblet.data.cleaning import Cleaning, check_not_cleaned, clean_run, read_confounds
from giblet.data.features import BLOCK_TRS, loses_in_float32, run_statistics
from giblet.data.pieces import Piece, pieces_of_runs
from giblet.data.volumes import Volumes
from giblet.files import atomic_path
from giblet.images import check_end, load_mask, load_series, mask_voxels, read_values

MARGIN_MM = 6.0
N_NAMED = 3  # TRs that a sentence names
SCRUBBED = "are scrubbed or not in steady state"  # what is said of a TR that cleaning leaves out


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


def common_mask(masks: list[Path]) -> nib.Nifti1Image:
    """Voxels that lie in every brain mask.

    Raises
    ------
    ValueError
        Where two lie on other grids, or no voxel is in all.
    """
    first = load_mask(masks[0])
    inside = np.asarray(first.dataobj) > 0
    for path in masks[1:]:
        other = load_mask(path)
        if other.shape != first.shape or not np.allclose(other.affine, first.affine, atol=1e-3):
            raise ValueError(
                f"{path} lies on another grid than {masks[0]}, {other.shape} and {first.shape}, "
                "expected one of all: choose one space and resolution, or resample them."
            )
        inside &= np.asarray(other.dataobj) > 0
        if not inside.any():
            raise ValueError(
                f"{path} has no voxel in common with the brain masks before it: look at it, or "
                "leave the subject out."
            )
    return nib.Nifti1Image(inside.astype(np.uint8), first.affine)


@dataclass(frozen=True)
class FMRIProcessor:
    """Voxels of a mask, cleaned and z-scored within each run, the latter by its training TRs.

    Parameters
    ----------
    tr : float
        Repetition time in seconds; the header's is not believed.
    mask_img : image, optional
        Voxels of `features_to_nifti`; `MultimodalDataset` fills it in.
    cleaning : Cleaning
        What is taken out of each run, by default nothing.
    """

    tr: float = 1.5
    mask_img: nib.Nifti1Image | None = field(default=None, repr=False, compare=False)
    cleaning: Cleaning = field(default_factory=Cleaning)

    def blocks(self, piece: Piece, mask_img) -> Iterator[np.ndarray]:
        """Read TRs of one series through one open handle, smoothed if that is asked for.

        Blocks are (n_block, n_voxels) voxels of the mask, in the data type of the file; NaN for TRs
        that the file does not have.

        Raises
        ------
        FileNotFoundError, ValueError
            Where the file is no 4-D NIfTI on the grid of the mask, see `giblet.images.load_series`.
        """
        mask = mask_voxels(mask_img)
        stop = piece.trs.start
        if piece.path is not None:
            image = load_series(piece.path)
            _check_grid(image, mask_img, piece.path)
            stop = max(stop, min(piece.trs.stop, image.shape[3]))
            for start in range(piece.trs.start, stop, BLOCK_TRS):
                trs = slice(start, min(start + BLOCK_TRS, stop))
                block = read_values(image, piece.path, trs)
                yield np.ascontiguousarray(self._smoothed(block, image.affine)[mask].T)
            check_end(image, piece.path)
        for start in range(stop, piece.trs.stop, BLOCK_TRS):
            n_trs = min(BLOCK_TRS, piece.trs.stop - start)
            yield np.full((n_trs, mask.sum()), np.nan, np.float32)

    def _smoothed(self, block: np.ndarray, affine: np.ndarray) -> np.ndarray:
        if not self.cleaning.smoothing_mm:
            return block
        values = nib.Nifti1Image(block.astype(np.float32), affine)
        return smooth_img(values, self.cleaning.smoothing_mm).get_fdata(dtype=np.float32)

    def scan(
        self,
        pieces: Sequence[Piece],
        mask_img,
        runs: list[slice],
        train: np.ndarray,
        raw: Path,
        tick: Callable,
    ) -> Scan:
        """Copy one subject's series to `raw`, clean it, and find what of it can be used.

        `raw` is a .npy (n_trs, n_voxels), float32, or float64 where float32 would round the signal
        away.

        A TR cannot be used if no voxel is finite in it, if it repeats a neighbour in every voxel,
        if it is unlike the other TRs of its run, see `Volumes`, or if cleaning scrubs it. A voxel
        cannot be used if it is not finite in a usable TR, or does not vary over the usable training
        TRs of a run (in a run without training TRs: over all its usable TRs).

        Parameters
        ----------
        pieces : sequence of Piece
            Where the TRs of the runs lie, one for all runs or one a run.
        runs : list of slice
            TRs of each run.
        train : (n_trs,) bool
            Training TRs, in the TRs of the series.
        """
        volumes = Volumes()
        firsts = [next(self.blocks(piece, mask_img)) for piece in pieces]
        dtype = "<f8" if any(map(loses_in_float32, firsts)) else "<f4"
        blocks = chain.from_iterable(self.blocks(piece, mask_img) for piece in pieces)
        with npy_writer(raw, (len(train), firsts[0].shape[1]), dtype) as write:
            for block in blocks:
                volumes.add(block)
                with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
                    write(block.astype(dtype, copy=False))
                tick(len(block))
        there = np.concatenate([piece.has for piece in pieces])
        left_out = {reason: trs & there for reason, trs in volumes.left_out(runs).items()}
        trs = there & ~np.any(list(left_out.values()), axis=0)
        if not trs.any():
            named = next(piece.path for piece in pieces if piece.path is not None)
            raise ValueError(
                f"{named} holds no TR with finite, changing values: leave the subject out or "
                "mend the file."
            )
        if self.cleaning.is_filter:
            left_out[SCRUBBED] = self._clean(raw, pieces, runs, trs)
            trs &= ~left_out[SCRUBBED]
        return self._voxels(raw, runs, trs, train, left_out)

    def _clean(
        self, raw: Path, pieces: Sequence[Piece], runs: list[slice], trs: np.ndarray
    ) -> np.ndarray:
        """Clean each run of a copied series in place; return the TRs that were scrubbed."""
        bold = np.load(raw, mmap_mode="r+")
        scrubbed = np.zeros(len(trs), bool)
        for run, piece in zip(runs, pieces_of_runs(pieces, runs), strict=True):
            if piece.path is None:
                continue
            if self.cleaning.confounds:
                check_not_cleaned(bold[run], trs[run], piece.path)
            confounds, measured = read_confounds(piece, self.cleaning)
            scrubbed[run] = trs[run] & ~measured
            usable = trs[run] & measured
            clean_run(bold[run], confounds, usable, self.cleaning, self.tr, piece.path)
        bold.flush()
        return scrubbed

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
