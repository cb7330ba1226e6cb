"""Simulated brains written as fMRIPrep writes them, with what a scanner adds: imported by tests."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from giblet.data import DataFolder

SPACE = "space-MNI152NLin2009cAsym_res-2"
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
COSINE_SECONDS = 128
MEAN = 1000.0  # of a voxel, and SIGNAL, that of one SD of simulated BOLD
SIGNAL = 10.0


def write_derivatives(
    simulated: Path,
    root: Path,
    names: dict[str, list[tuple[str, str]]] | None = None,
    task: str = "film",
    artefact: float = 5.0,
    drift: float = 5.0,
    uncleaned: int = 0,
    random_state: int = 0,
) -> Path:
    """Write the series of a simulated folder as the derivatives of fMRIPrep, a file a run.

    Each voxel has a mean, a slow drift and follows head motion; `artefact` and `drift` are in SDs
    of its signal. Series are int16 with a slope, confounds have `n/a` in their first row.

    Parameters
    ----------
    names : dict of str to list of (folder, entities)
        Of a subject, the session folder and the entities of each run, such as ('ses-1',
        'ses-1_task-film_run-1'); default run-1, run-2, without sessions.
    uncleaned : int
        Volumes at the start of each run that are not in steady state.
    """
    folder = DataFolder.open(simulated)
    root.mkdir(parents=True)
    about = {"Name": "fMRIPrep", "BIDSVersion": "1.4.0", "DatasetType": "derivative"}
    (root / "dataset_description.json").write_text(json.dumps(about))
    rng = np.random.default_rng(random_state)
    for subject, (series,) in folder.subjects.items():
        image = nib.load(series)
        bold = np.asarray(image.dataobj, np.float32)
        usual = [("", f"task-{task}_run-{run + 1}") for run in range(len(folder.runs))]
        runs = (names or {}).get(subject, usual)
        for trs, (session, entities) in zip(folder.runs, runs, strict=True):
            place = root / subject / session / "func"
            place.mkdir(parents=True, exist_ok=True)
            stem = place / f"{subject}_{entities}"
            confounds = confounds_table(trs.stop - trs.start, folder.tr, uncleaned, rng)
            scanned = _scanned(bold[..., trs], confounds, artefact, drift, uncleaned, rng)
            _write_run(stem, scanned, image, folder, confounds)
    return root


def confounds_table(n_trs: int, tr: float, uncleaned: int, rng) -> pd.DataFrame:
    """The columns of fMRIPrep that strategies read, and some that they do not."""
    columns = {}
    walks = rng.standard_normal((n_trs, len(MOTION))).cumsum(0) * 0.02
    jumps = 0.3 * (rng.random((n_trs, len(MOTION))) < 0.02) * rng.standard_normal((n_trs, 6))
    for name, walk in zip(MOTION, (walks + jumps).T, strict=True):
        slope = np.concatenate([[np.nan], np.diff(walk)])
        columns |= {name: walk, f"{name}_derivative1": slope}
        columns |= {f"{name}_power2": walk**2, f"{name}_derivative1_power2": slope**2}
    for name in ("csf", "white_matter", "global_signal"):
        signal = MEAN + rng.standard_normal(n_trs).cumsum()
        slope = np.concatenate([[np.nan], np.diff(signal)])
        columns |= {name: signal, f"{name}_derivative1": slope}
        columns |= {f"{name}_power2": signal**2, f"{name}_derivative1_power2": slope**2}
    n_cosines = int(2 * n_trs * tr / COSINE_SECONDS)
    times = (np.arange(n_trs) + 0.5) / n_trs
    columns |= {f"cosine{k:02d}": np.cos(np.pi * (k + 1) * times) for k in range(n_cosines)}
    columns["framewise_displacement"] = np.append(np.nan, np.abs(np.diff(walks, axis=0)).sum(1))
    columns["std_dvars"] = np.append(np.nan, 1 + 0.1 * rng.standard_normal(n_trs - 1))
    columns["std_dvars"][n_trs // 2] = 3.0  # one volume to scrub
    for volume in range(uncleaned):
        name = f"non_steady_state_outlier{volume:02d}"
        columns[name] = (np.arange(n_trs) == volume).astype(int)
    return pd.DataFrame(columns)


def _scanned(bold, confounds: pd.DataFrame, artefact, drift, uncleaned: int, rng) -> np.ndarray:
    """What a scanner would have measured, where there is a brain."""
    inside = bold.any(-1)
    n_voxels, n_trs = inside.sum(), bold.shape[-1]
    motion = confounds[list(MOTION)].to_numpy()
    motion = (motion - motion.mean(0)) / motion.std(0)
    follows = rng.standard_normal((n_voxels, len(MOTION))) @ motion.T
    slow = np.outer(rng.standard_normal(n_voxels), np.linspace(-1, 1, n_trs))
    sd = bold[inside].std(-1, keepdims=True)
    values = bold[inside] / sd
    values += artefact * follows / follows.std(-1, keepdims=True) + drift * slow / slow.std()
    values[:, :uncleaned] += 40
    whole = np.zeros(bold.shape, np.float32)
    whole[inside] = MEAN + SIGNAL * values
    return whole


def _write_run(stem: Path, scanned, image, folder, confounds: pd.DataFrame) -> None:
    series = nib.Nifti1Image(scanned, image.affine)
    series.header.set_sform(image.affine, code=4)
    series.header.set_qform(image.affine, code=4)
    series.header.set_zooms((*image.header.get_zooms()[:3], folder.tr))
    series.header.set_xyzt_units("mm", "sec")
    series.set_data_dtype(np.int16)
    name = f"{stem}_{SPACE}_desc-preproc_bold"
    nib.save(series, f"{name}.nii.gz")
    about = {"RepetitionTime": folder.tr, "SkullStripped": False, "TaskName": "film"}
    Path(f"{name}.json").write_text(json.dumps(about))
    mask = nib.Nifti1Image(scanned.any(-1).astype(np.uint8), image.affine)
    nib.save(mask, f"{stem}_{SPACE}_desc-brain_mask.nii.gz")
    table = f"{stem}_desc-confounds_timeseries.tsv"
    confounds.to_csv(table, sep="\t", index=False, na_rep="n/a")
    about = {name: {"Method": "aCompCor"} for name in confounds if name.startswith("a_comp")}
    Path(table).with_suffix(".json").write_text(json.dumps(about))


def write_stimuli(simulated: Path, root: Path) -> Path:
    """The films and the sheet of a simulated folder, as a folder of stimuli."""
    root.mkdir(parents=True)
    for file in (*simulated.glob("movie_run-*.mp4"), simulated / "annotations.xlsx"):
        shutil.copy(file, root)
    return root
