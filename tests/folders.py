"""Data folders like those of users, made from simulated ones: imported by tests."""

import shutil
from pathlib import Path

import av
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from giblet.data import DataFolder, simulate_dataset

TOML = {"tr": "1.5", "lag_trs": "0", "movies": '["film.mp4"]', "fmri": '"*.nii.gz"'}
N_TRS = 8
AFFINE = np.diag([8.0, 8, 8, 1])


def mute(movie: Path) -> None:
    """Leave the pictures of a movie alone in it."""
    with av.open(str(movie)) as source, av.open(str(movie.with_stem("muted")), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    movie.with_stem("muted").replace(movie)


def without(path: Path, *entries: str) -> None:
    """Take entries out of dataset.toml, and what says that the data are simulated."""
    text, _ = path.read_text().split("[simulation]")
    lines = [line for line in text.splitlines() if not line.startswith(entries)]
    path.write_text("\n".join(lines))


def other_lab(path: Path) -> Path:
    """Ten minutes with film and BOLD, TR 2 s, five brains, and an atlas of eight slabs.

    The data set does not say that it is simulated, so that the kit treats it as anybody's.
    """
    simulate_dataset(
        path, n_subjects=5, run_trs=(153, 153), tr=2.0, resolution_mm=12, progress=False
    )
    without(path / "dataset.toml")
    mask_img = nib.load(path / "mask.nii.gz")
    rows = np.arange(mask_img.shape[1])[None, :, None]
    slabs = 1 + rows * 8 // mask_img.shape[1] + 0 * np.asarray(mask_img.dataobj, np.int16)
    nib.save(nib.Nifti1Image(slabs.astype(np.int16), mask_img.affine), path / "atlas.nii.gz")
    table = pd.DataFrame(
        {"index": range(1, 9), "name": [f"slab {letter}" for letter in "abcdefgh"]}
    )
    table.to_csv(path / "atlas.tsv", sep="\t", index=False)
    with (path / "dataset.toml").open("a") as file:
        file.write('\nregions = "atlas.nii.gz"\nregion_names = "atlas.tsv"\n')
    return path


def copy_of(folder: Path, path: Path) -> Path:
    """Its files, without caches and runs."""
    return shutil.copytree(folder, path, ignore=shutil.ignore_patterns("cache", "runs", ".*"))


def write_folder(path, files=("sub-01.nii.gz", "sub-02.nii.gz"), **entries):
    """A folder with brains of one voxel, each of its own values."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "film.mp4").touch()
    for number, name in enumerate(files):
        write_brain(path / name, number)
    lines = [f"{name} = {value}\n" for name, value in (TOML | entries).items()]
    (path / "dataset.toml").write_text("".join(lines))
    return path


def write_brain(path, number: int = 0, n_trs: int = N_TRS):
    """A series of one voxel that is a number throughout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    series = np.full((1, 1, 1, n_trs), number, np.int16)
    nib.save(nib.Nifti1Image(series, AFFINE), path)
    return path


def refused(path, *words: str, error: type = ValueError) -> None:
    """Opening the folder ends in a sentence that holds some words."""
    with pytest.raises(error) as found:
        DataFolder.open(path)
    assert type(found.value) is error
    for word in words:
        assert word in str(found.value)
