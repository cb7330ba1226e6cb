"""Brains: NIfTI -> voxels by TR, and voxels -> NIfTI."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_brain_mask
from nilearn.image import resample_img
from nilearn.masking import unmask
from scipy.ndimage import distance_transform_edt

from giblet.data.features import BLOCK_TRS, run_statistics
from giblet.files import atomic_path

MARGIN_MM = 6.0


@dataclass(frozen=True)
class Scan:
    """Which parts of one subject's series can be used.

    `trs` is (n_trs,) bool, `voxels` (n_voxels,) bool.

    `mean` and `sd` (n_runs, n_voxels) are those that z-score each run.
    """

    trs: np.ndarray
    voxels: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


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

        Blocks are (n_block, n_voxels) float32, voxels of the mask.

        Raises
        ------
        ValueError
            Where the file is no 4-D NIfTI of `n_trs` TRs on the grid of the mask.
        """
        try:
            image = nib.load(path, keep_file_open=True)
        except nib.filebasedimages.ImageFileError as error:
            raise ValueError(f"{path} cannot be read as NIfTI ({error}): convert it.") from None
        mask = np.asarray(mask_img.dataobj) > 0
        if image.ndim != 4:
            raise ValueError(
                f"{path} has shape {image.shape}, expected 4-D, with TRs last: give the whole "
                "series."
            )
        if image.shape[:3] != mask.shape or not np.allclose(
            image.affine, mask_img.affine, atol=1e-3
        ):
            raise ValueError(
                f"{path} lies on another grid than the mask, {image.shape[:3]} with affine "
                f"{image.affine.tolist()}, "
                f"expected {mask.shape} with {mask_img.affine.tolist()}: resample one to the other."
            )
        if image.shape[3] != n_trs:
            raise ValueError(
                f"{path} has {image.shape[3]} TRs, expected {n_trs}: mend run_trs in dataset.toml."
            )
        for start in range(0, n_trs, BLOCK_TRS):
            try:
                block = np.asarray(image.dataobj[..., start : start + BLOCK_TRS], dtype=np.float32)
            except (OSError, EOFError, zlib.error) as error:
                raise ValueError(
                    f"{path} is damaged after TR {start} ({error}): copy it again."
                ) from None
            yield np.ascontiguousarray(block[mask].T)

    def scan(
        self,
        path: str | Path,
        mask_img,
        runs: list[slice],
        train: np.ndarray,
        raw: Path,
        tick: Callable,
    ) -> Scan:
        """Copy one subject's series to `raw` and find what of it can be used.

        `raw` is a .npy (n_trs, n_voxels) float32.

        A TR cannot be used if no voxel is finite in it, or if it repeats a neighbour in every
        voxel. A voxel cannot be used if it is not finite in a usable TR, or does not vary over the
        usable training TRs of a run (in a run without training TRs: over all its usable TRs).

        Parameters
        ----------
        runs : list of slice
            TRs of each run.
        train : (n_trs,) bool
            Training TRs, in the file's own TRs.
        """
        n_trs = len(train)
        n_voxels = int((np.asarray(mask_img.dataobj) > 0).sum())
        finite = np.zeros(n_trs, bool)
        repeats = np.zeros(n_trs + 1, bool)
        last = None
        start = 0
        with npy_writer(raw, (n_trs, n_voxels)) as write:
            for block in self.blocks(path, mask_img, n_trs):
                rows = slice(start, start + len(block))
                finite[rows] = np.isfinite(block).any(1)
                before = np.concatenate([block[:1] + 1 if last is None else last, block[:-1]])
                repeats[rows] = ~(np.isfinite(block) & (block != before)).any(1) & finite[rows]
                write(block)
                last = block[-1:]
                start = rows.stop
                tick(len(block))
        trs = finite & ~repeats[:-1] & ~repeats[1:]
        if not trs.any():
            raise ValueError(
                f"{path} holds no TR with finite, changing values: leave the subject out or mend "
                "the file."
            )
        return self._voxels(raw, runs, trs, train)

    @staticmethod
    def _voxels(raw: Path, runs: list[slice], trs: np.ndarray, train: np.ndarray) -> Scan:
        """Mean and SD of each run's usable training TRs, in float64, and the voxels that vary."""
        bold = np.load(raw, mmap_mode="r")
        mean, sd = np.zeros((2, len(runs), bold.shape[1]))
        voxels = np.ones(bold.shape[1], bool)
        for index, run in enumerate(runs):
            mean[index], sd[index], varying = run_statistics(bold[run], trs[run], train[run])
            voxels &= varying
        return Scan(trs, voxels, mean, sd)

    def features_to_nifti(self, features, path: str | Path) -> None:
        """Write (n_trs, n_voxels) values as a 4-D NIfTI, or (n_voxels,) as a 3-D one.

        Values are 0 outside the mask.
        """
        if self.mask_img is None:
            raise ValueError(
                "this processor has no mask_img: take `fmri_processor` of a MultimodalDataset."
            )
        features = np.asarray(features, np.float32)
        mask = np.asarray(self.mask_img.dataobj) > 0
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
