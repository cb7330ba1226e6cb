"""Folders that are not the simulated one: other layouts, missing parts, bad parts."""

import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from giblet.data import DataFolder, MultimodalDataset, VideoProcessor
from giblet.data.media import write_movie

RUNS = (50, 52)
GRID = (61, 73, 61)
AFFINE = np.array([[3.0, 0, 0, -90], [0, 3, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]])


def write_film(path, n_trs: int, sound: bool = True) -> None:
    """A film whose luminance is twice the number of the TR."""
    levels = np.repeat(np.arange(n_trs) * 2, 3).astype(np.uint8)
    noise = (
        np.random.default_rng(0).uniform(-0.3, 0.3, round(n_trs * 1.5 * 24_000)).astype(np.float32)
    )
    write_movie(
        path,
        np.broadcast_to(levels[:, None, None], (len(levels), 16, 16)),
        2,
        noise if sound else None,
    )


def write_series(path, n_trs: int = sum(RUNS), seed: int = 0) -> np.ndarray:
    """BOLD in a small part of the MNI brain, 0 elsewhere; returns it, (n_trs, n_voxels)."""
    volume = np.zeros((*GRID, n_trs), np.float32)
    volume[25:28, 30:33, 30:33] = np.random.default_rng(seed).standard_normal((3, 3, 3, n_trs))
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(volume, AFFINE), path)
    return volume[25:28, 30:33, 30:33].reshape(27, n_trs).T


@pytest.fixture
def folder(tmp_path):
    """Two subjects, one movie for both runs, no sheet, no mask."""
    path = tmp_path / "data"
    path.mkdir()
    write_film(path / "film.mp4", sum(RUNS))
    for subject in (1, 2):
        write_series(path / f"brains/s{subject}.nii.gz", seed=subject)
    lines = [
        "tr = 1.5",
        "lag_trs = 2",
        'movies = ["film.mp4"]',
        'fmri = "brains/*.nii.gz"',
        f"run_trs = {list(RUNS)}",
    ]
    (path / "dataset.toml").write_text("\n".join(lines) + "\n")
    return path


def open_all(folder, **settings) -> MultimodalDataset:
    video = VideoProcessor(height=4, width=4, frame_skip=36)  # one frame a TR
    return MultimodalDataset(folder, split="all", **({"video_processor": video} | settings))


def add(folder, line: str) -> None:
    description = folder / "dataset.toml"
    description.write_text(description.read_text() + line + "\n")


def test_one_movie_for_all_runs(folder):
    """Every TR has its own picture and its own lagged BOLD, in both runs."""
    data = open_all(folder)
    assert data.n_trs == sum(RUNS) - 4
    batch = data[list(range(data.n_trs))]
    assert np.abs(255 * batch["video"].mean(1).numpy() - 2 * data.tr_index).max() <= 2
    bold = write_series(folder / "brains/s1.nii.gz", seed=1)
    for run in (0, 1):
        rows = data.tr_index[data.run == run]
        got = batch["fmri"][data.run == run].numpy()
        r = [np.corrcoef(got[:, v], bold[rows + 2][:, v])[0, 1] for v in range(27)]
        assert r == pytest.approx([1] * 27, abs=1e-5)


def test_what_is_not_given_is_found_and_said(folder, capsys):
    data = open_all(folder)
    printed = capsys.readouterr().out
    assert (
        "no mask given: voxels within 6 mm of the MNI152 brain that vary in every subject"
        in printed
    )
    assert "no annotations given: trains without text" in printed
    assert "27 of " in printed
    assert data.present == ("video", "audio")
    assert data.model_dims["text_dim"] == 0
    assert np.asarray(data.mask_img.dataobj).sum() == 27


def test_movie_without_sound(folder, capsys):
    write_film(folder / "film.mp4", sum(RUNS), sound=False)
    data = open_all(folder)
    printed = capsys.readouterr().out
    assert "film.mp4 has no sound: it counts as silent" in printed
    assert "audio is the same in every training TR: trains without it" in printed
    assert data.present == ("video",)
    assert data[[0, 1]]["audio"].shape == (2, 0)


def test_movie_that_ends_before_the_last_run(folder, capsys):
    write_film(folder / "film.mp4", sum(RUNS) - 5)
    data = open_all(folder)
    assert data.tr_index.max() == sum(RUNS) - 6
    assert "where stimulus or lagged BOLD is missing: 2, 5 TRs" in capsys.readouterr().out


def test_one_run_takes_the_length_of_the_series(folder, capsys):
    description = folder / "dataset.toml"
    description.write_text(description.read_text().replace(f"run_trs = {list(RUNS)}\n", ""))
    data = open_all(folder)
    assert "one run of 102 TRs, the length of the series" in capsys.readouterr().out
    assert data.tr_index.tolist() == list(range(100))


def test_skipped_trs_are_in_no_split(folder):
    add(folder, "skip_trs = [3, 0]")
    data = open_all(folder)
    assert data.tr_index.min() == 3
    assert set(range(50, 60)) < set(data.tr_index.tolist())


def test_stretch_that_was_not_measured(folder, capsys):
    """The last 20 TRs of one subject are frozen: no items, and the mean is the other subject's."""
    volume = np.asarray(nib.load(folder / "brains/s2.nii.gz").dataobj).copy()
    volume[..., 82:] = volume[..., 82:83]
    nib.save(nib.Nifti1Image(volume, AFFINE), folder / "brains/s2.nii.gz")
    data = open_all(folder)
    mean = open_all(folder, average=True)
    printed = capsys.readouterr().out
    assert "s2.nii.gz: 20 TRs that repeat a neighbour are left out: 82, 83, 84, ..." in printed
    assert len(data) == 2 * data.n_trs - 20
    items = [(item["subject_id"], int(item["tr_index"])) for item in data]
    assert {tr for subject, tr in items if subject == "s2"} == set(data.tr_index.tolist()) - set(
        range(80, 100)
    )
    assert np.isnan(data.fmri()[1, data.tr_index >= 80]).all()
    assert np.isfinite(data.fmri()[0]).all()
    assert np.allclose(mean.fmri(), np.nanmean(data.fmri(), axis=0), atol=1e-6)


def test_equal_names_in_folders_of_their_own(folder):
    """Names that hold slashes, and volumes that were dropped, through to the arrays."""
    volumes = {}
    for subject in (1, 2):
        path = folder / f"s{subject}/bold.nii.gz"
        volumes[subject] = 1000 + 20 * write_series(path, seed=subject)
    image = nib.load(folder / "s2/bold.nii.gz")
    dropped = 1000 * (np.asarray(image.dataobj) != 0) + 20 * np.asarray(image.dataobj)
    dropped[..., 12] = 0
    nib.save(nib.Nifti1Image(dropped.astype(np.float32), AFFINE), folder / "s2/bold.nii.gz")
    description = folder / "dataset.toml"
    description.write_text(description.read_text().replace("brains/*", "s[12]/bold"))
    data = open_all(folder)
    assert data.subjects == ["s1/bold", "s2/bold"]
    assert np.flatnonzero(~data.features.valid[1, : RUNS[0] - 2]).tolist() == [10]
    assert data.features.valid[0, : RUNS[0] - 2].all()
    train = np.flatnonzero(data.split_labels[: RUNS[0]] == "train") + 2
    series = volumes[2][train[train != 12]]
    expected = (volumes[2][20] - series.mean(0)) / series.std(0)
    assert np.allclose(data.features.fmri[1, 18], expected, atol=1e-4)


def test_subject_with_nothing(folder):
    volume = np.full((*GRID, sum(RUNS)), np.nan, np.float32)
    nib.save(nib.Nifti1Image(volume, AFFINE), folder / "brains/s2.nii.gz")
    with pytest.raises(
        ValueError,
        match=r"s2\.nii\.gz holds no TR with finite, changing values: leave the subject out",
    ):
        open_all(folder)


def test_no_common_voxel(folder):
    volume = np.zeros((*GRID, sum(RUNS)), np.float32)
    volume[35, 30, 30] = np.random.default_rng(0).standard_normal(sum(RUNS))
    nib.save(nib.Nifti1Image(volume, AFFINE), folder / "brains/s2.nii.gz")
    with pytest.raises(
        ValueError,
        match=r"no voxel is finite and varies in every subject, .*s2\.nii\.gz has 1: mend",
    ):
        open_all(folder)


def test_subjects_of_different_length(folder):
    description = folder / "dataset.toml"
    description.write_text(description.read_text().replace(f"run_trs = {list(RUNS)}\n", ""))
    write_series(folder / "brains/s2.nii.gz", n_trs=90)
    found = DataFolder.open(folder)
    assert found.run_trs == (90,)
    assert "run 1 has 90 TRs, but s1.nii.gz has 102 (12 cropped at its end)" in found.inferred


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "skip_trs = [3]",
            r"skip_trs in .*dataset\.toml is \[3\], expected a number for each of 2 runs",
        ),
        ("TR = 2.0", r"dataset\.toml has TR, expected only annotations, "),
        (
            'text_columns = ["N"]',
            "has text_columns without annotations, expected the file that they are in",
        ),
    ],
)
def test_bad_entries(folder, line, message):
    add(folder, line)
    with pytest.raises(ValueError, match=message):
        DataFolder.open(folder)


def sherlock_layout(path):
    """The published layout, with brains of one voxel."""
    (path / "sherlock_nii").mkdir(parents=True)
    for name in ("stimuli_Sherlock.m4v", "annotations.xlsx"):
        (path / name).touch()
    for n in (1, 2, 10):
        series = np.full((1, 1, 1, 1976), n, np.uint8)
        nib.save(nib.Nifti1Image(series, AFFINE), path / f"sherlock_nii/sherlock_movie_s{n}.nii.gz")
    return path


def test_published_layout_is_recognised(tmp_path):
    found = DataFolder.open(sherlock_layout(tmp_path / "data"))
    assert (found.tr, found.run_trs, found.lag_trs, found.skip_trs) == (
        1.5,
        (946, 1030),
        0,
        (26, 26),
    )
    assert list(found.subjects) == ["sherlock_movie_s1", "sherlock_movie_s2", "sherlock_movie_s10"]
    assert any(
        "recognised the published Sherlock layout" in sentence for sentence in found.inferred
    )


def test_published_layout_without_its_movie(tmp_path):
    path = sherlock_layout(tmp_path / "data")
    (path / "stimuli_Sherlock.m4v").unlink()
    with pytest.raises(FileNotFoundError, match=r"stimuli_Sherlock\.m4v is missing"):
        DataFolder.open(path)


def test_description_has_the_last_word(tmp_path, folder):
    for path in sherlock_layout(tmp_path / "sherlock").iterdir():
        shutil.move(path, folder)
    assert DataFolder.open(folder).run_trs == RUNS


def ten_lines(marker: str) -> str:
    """The Python example of data/README.md that holds a marker."""
    readme = (Path(__file__).parents[2] / "data/README.md").read_text()
    (code,) = (
        code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if marker in code
    )
    assert len([line for line in code.splitlines() if line]) <= 10
    return code


def test_ten_lines_of_the_readme(folder, monkeypatch):
    """A film, two brains and the README's own lines."""
    shutil.move(folder, folder.with_name("my-film"))
    monkeypatch.chdir(folder.parent)
    for number in (1, 2):
        shutil.move(f"my-film/brains/s{number}.nii.gz", f"my-film/sub-{number:02d}.nii.gz")
    code = ten_lines("my-film").replace("average=True", "average=True, video_processor=small")
    names = {"small": VideoProcessor(4, 4, 36)}
    exec(code, names)
    assert names["data"].tr == 2.0
    assert names["data"].model_dims["n_voxels"] == 27
