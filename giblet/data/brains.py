"""The brains of a data folder: read once, cleaned, and z-scored into their common voxels."""

from pathlib import Path

import nibabel as nib
import numpy as np
from tqdm.auto import tqdm

from giblet.data.features import BLOCK_TRS, zscored
from giblet.data.fmri import FMRIProcessor, Scan, common_mask, npy_writer, template_mask
from giblet.data.folder import DataFolder
from giblet.images import load_series


def prepare_brains(
    folder: DataFolder,
    fmri: FMRIProcessor,
    usable: list[slice],
    train: np.ndarray,
    out: Path,
    progress: bool,
) -> list[str]:
    """Read every subject once, find the shared mask, then z-score into it.

    The copy that is read into holds the template's voxels.
    """
    if folder.masks:
        mask_img = common_mask(folder.masks)
    else:
        mask_img = template_mask(load_series(folder.series[0]))
    lagged = np.zeros(len(train), bool)  # training TRs in the file's own TRs
    lagged[folder.lag_trs :] = train[: len(train) - folder.lag_trs]
    scans = {}
    with tqdm(
        total=len(folder.subjects) * len(train), desc="brains", unit="TR", disable=not progress
    ) as bar:
        for number, name in enumerate(folder.subjects):
            raw = out / f"{number}.raw.npy"  # names may hold slashes, or differ only by case
            scans[name] = fmri.scan(
                folder.pieces(name), mask_img, folder.runs, lagged, raw, bar.update
            )
    shared = np.all([scan.voxels for scan in scans.values()], axis=0)
    if not shared.any():
        worst = min(scans, key=lambda name: scans[name].voxels.sum())
        raise ValueError(
            f"no voxel is finite and varies in every subject, {_shown(folder.subjects[worst])} has "
            f"{scans[worst].voxels.sum()}: mend the mask or leave the subject out."
        )
    mask = np.zeros(mask_img.shape, np.uint8)
    mask[np.asarray(mask_img.dataobj) > 0] = shared
    nib.save(nib.Nifti1Image(mask, mask_img.affine), out / "mask.nii.gz")
    _standardize(scans, shared, usable, folder, out)
    said = [f"{shared.sum()} of {len(shared)} voxels are finite and vary in every subject"]
    for name, scan in scans.items():
        said += scan.sentences(_shown(folder.subjects[name]))
    return said


def _shown(files: tuple[Path | None, ...]) -> str:
    first, *others = (file for file in files if file is not None)
    return " with ".join([str(first), *(file.name for file in others)])


def _standardize(
    scans: dict[str, Scan], shared: np.ndarray, usable: list[slice], folder: DataFolder, out: Path
) -> None:
    """Write `fmri.npy` and `valid.npy`; rows without BOLD are 0."""
    n_trs = sum(folder.run_trs)
    columns = np.flatnonzero(shared)
    valid = np.zeros((len(scans), n_trs), bool)
    with npy_writer(out / "fmri.npy", (len(scans), n_trs, len(columns))) as write:
        for number, scan in enumerate(scans.values()):
            trs = valid[number]
            raw = np.load(out / f"{number}.raw.npy", mmap_mode="r")
            for index, (run, rows) in enumerate(zip(folder.runs, usable, strict=True)):
                mean = scan.mean[index, columns]
                sd = scan.sd[index, columns]
                trs[rows] = scan.trs[rows.start + folder.lag_trs : rows.stop + folder.lag_trs]
                for start in range(rows.start, rows.stop, BLOCK_TRS):
                    stop = min(start + BLOCK_TRS, rows.stop)
                    bold = raw[start + folder.lag_trs : stop + folder.lag_trs][:, columns]
                    write(zscored(bold, mean, sd, trs[start:stop]))
                write(np.zeros((run.stop - rows.stop, len(columns)), np.float32))
            del raw
            (out / f"{number}.raw.npy").unlink()
    np.save(out / "valid.npy", valid)
