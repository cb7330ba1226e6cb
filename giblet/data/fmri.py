"""Brains: NIfTI -> voxels by TR."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

BLOCK_TRS = 64  # read at a time, so that no whole series is held in memory


@dataclass(frozen=True)
class FMRIProcessor:
    """Voxels of a shared mask, z-scored within each run by its training TRs.

    Parameters
    ----------
    tr : float
        Repetition time in seconds; the header's is not believed.
    """

    tr: float = 1.5

    def fill(self, path: str | Path, mask_img, features: np.ndarray, tick: Callable = lambda n: None) -> None:
        """Read one subject's series into `features` (n_trs, n_voxels) float32, in place.

        Raises ValueError where the image is not 4-D, lies on another grid than the mask or has another length.
        """
        image = nib.load(path, keep_file_open=True)
        mask = np.asarray(mask_img.dataobj) > 0
        expected = (*mask.shape, len(features))
        if image.shape != expected:
            raise ValueError(
                f"{path} has shape {image.shape}, expected {expected}: mend the mask or run_trs in dataset.toml."
            )
        if not np.allclose(image.affine, mask_img.affine, atol=1e-3):
            raise ValueError(
                f"{path} lies on another grid than the mask, affine {image.affine.tolist()}, expected "
                f"{mask_img.affine.tolist()}: resample one to the other."
            )
        for start in range(0, len(features), BLOCK_TRS):
            block = np.asarray(image.dataobj[..., start : start + BLOCK_TRS], dtype=np.float32)
            features[start : start + BLOCK_TRS] = block[mask].T
            tick(block.shape[-1])

    def standardize(self, bold: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Z-score the columns of one run (n_trs, n_voxels) by its training TRs (n_trs,) bool.

        Voxels that do not vary in training become 0.
        """
        mean, sd = bold[train].mean(0, dtype=np.float64), bold[train].std(0, dtype=np.float64)
        return ((bold - mean) / np.where(sd > 1e-6 * np.abs(mean), sd, np.inf)).astype(np.float32)
