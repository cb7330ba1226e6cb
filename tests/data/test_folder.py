import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from folders import write_folder

from giblet.data import DataFolder


@pytest.fixture
def folder(simulated, tmp_path):
    """A data folder of links, to be spoiled."""
    path = tmp_path / "data"
    path.mkdir()
    for file in simulated.glob("*.*"):
        if file.suffix == ".toml":
            shutil.copy(file, path)
        else:
            (path / file.name).symlink_to(file)
    return path


def edit(folder, old: str, new: str) -> None:
    description = folder / "dataset.toml"
    assert old in description.read_text()
    description.write_text(description.read_text().replace(old, new))


def test_a_whole_folder(folder):
    found = DataFolder.open(folder)
    assert (found.tr, found.run_trs, found.lag_trs, found.simulated) == (1.5, (64, 62), 3, True)
    assert [path.name for path in found.movies] == ["movie_run-1.mp4", "movie_run-2.mp4"]
    assert list(found.subjects) == ["sub-01", "sub-02"]
    assert found.truth["planted"]["Visual"] == ["pictures"]


def test_nothing_is_planted_in_real_data(folder):
    description = folder / "dataset.toml"
    description.write_text(description.read_text().split("[simulation]")[0])
    assert DataFolder.open(folder).truth == {}


def test_no_description(folder):
    (folder / "dataset.toml").unlink()
    with pytest.raises(FileNotFoundError, match=r"dataset\.toml is missing: see data/README\.md"):
        DataFolder.open(folder)


def test_broken_description(folder):
    edit(folder, "run_trs = [64, 62]", "run_trs = [64, 62")
    with pytest.raises(ValueError, match=r"dataset\.toml is not valid TOML"):
        DataFolder.open(folder)


def test_missing_entries(folder):
    edit(folder, "tr = 1.5\n", "")
    with pytest.raises(ValueError, match=r"dataset\.toml lacks tr: see"):
        DataFolder.open(folder)


@pytest.mark.parametrize("name", ["movie_run-2.mp4", "annotations.xlsx", "mask.nii.gz"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{name} is missing, but .*dataset\.toml names it"
    ):
        DataFolder.open(folder)


def test_no_subjects(folder):
    for path in folder.glob("sub-*"):
        path.unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"holds no file like 'sub-\*\.nii\.gz', expected one a subject: mend",
    ):
        DataFolder.open(folder)


def test_movies_must_match_runs(folder):
    edit(folder, "run_trs = [64, 62]", "run_trs = [126]")
    with pytest.raises(ValueError, match="names 2 movies for 1 runs, expected one a run"):
        DataFolder.open(folder)


def test_regions_of_its_own(folder):
    (folder / "atlas.nii.gz").touch()
    (folder / "atlas.tsv").touch()
    edit(
        folder, "[simulation]", 'regions = "atlas.nii.gz"\nregion_names = "atlas.tsv"\n[simulation]'
    )
    found = DataFolder.open(folder)
    assert (found.regions, found.region_names) == (folder / "atlas.nii.gz", folder / "atlas.tsv")
    edit(folder, '"atlas.tsv"', '["V1", "V2"]')
    assert DataFolder.open(folder).region_names == ("V1", "V2")
    edit(folder, 'regions = "atlas.nii.gz"', "")
    with pytest.raises(
        ValueError,
        match=r"dataset\.toml has region_names without regions, expected the label image",
    ):
        DataFolder.open(folder)


def test_missing_regions(folder):
    edit(folder, "[simulation]", 'regions = "atlas.nii.gz"\n[simulation]')
    with pytest.raises(
        FileNotFoundError, match=r"atlas\.nii\.gz is missing, but .*dataset\.toml names it"
    ):
        DataFolder.open(folder)


def test_settings_of_its_own(folder):
    found = DataFolder.open(folder)
    assert (found.context, found.test_runs) == ((0, 0), ())
    settings = 'subjects = ["sub-02"]\ncontext = [2, 1]\ntest_runs = [1]\n[simulation]'
    edit(folder, "[simulation]", settings)
    found = DataFolder.open(folder)
    assert (found.context, found.test_runs) == ((2, 1), (1,))
    assert list(found.subjects) == ["sub-02"]


def test_subject_that_is_not_there(folder):
    edit(folder, "[simulation]", 'subjects = ["sub-02", "sub-3"]\n[simulation]')
    with pytest.raises(
        ValueError,
        match=r"subjects in .*dataset\.toml has sub-3, expected some of sub-01, sub-02, the series",
    ):
        DataFolder.open(folder)


def test_unknown_entry(folder):
    edit(folder, "[simulation]", "test_run = [1]\n[simulation]")
    with pytest.raises(ValueError, match=r"dataset\.toml has test_run, expected only .*test_runs"):
        DataFolder.open(folder)


@pytest.mark.parametrize(
    "truth", ["", "{", "[]", "{}", '{"planted": 3}', '{"planted": {"Visual": 3}}', "[" * 100_000]
)
def test_damaged_truth(folder, truth):
    (folder / "truth.json").unlink()
    (folder / "truth.json").write_text(truth)
    with pytest.raises(ValueError, match=r"truth\.json is damaged, expected the truth that"):
        _ = DataFolder.open(folder).truth


def test_truth_of_old(folder):
    found = json.loads((folder / "truth.json").read_text())["planted"]
    assert DataFolder.open(folder).truth["planted"] == found


def write_headers(folder, unit: str, *trs: float) -> None:
    """Series whose headers state repetition times."""
    for path, tr in zip(sorted(folder.glob("sub-*")), trs, strict=True):
        image = nib.load(path)
        image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
        image.header.set_xyzt_units("mm", unit)
        nib.save(image, path)


def said_of_headers(path) -> list[str]:
    return [one for one in DataFolder.open(path).inferred if "the header states" in one]


@pytest.mark.parametrize("stated", [(2.0, "sec"), (2000, "msec"), (2.0, "unknown")])
def test_a_header_of_another_tr_is_said(tmp_path, stated):
    tr, unit = stated
    folder = write_folder(tmp_path)
    write_headers(folder, unit, tr, tr)
    assert said_of_headers(folder) == [
        f"{folder / 'sub-01.nii.gz'} and 1 more: the header states a TR of 2 s, but "
        f"{folder / 'dataset.toml'} says 1.5 s, which is taken: make sure of it"
    ]


@pytest.mark.parametrize(
    "stated", [(1.5, "sec"), (1500, "msec"), (1.0, "unknown"), (0, "sec"), (1.503, "sec")]
)
def test_a_header_that_agrees_or_states_nothing(tmp_path, stated):
    tr, unit = stated
    folder = write_folder(tmp_path)
    write_headers(folder, unit, tr, tr)
    assert said_of_headers(folder) == []


def test_each_tr_of_headers_is_said_once(tmp_path):
    folder = write_folder(tmp_path)
    write_headers(folder, "sec", 2.0, 1.0)
    assert [one.split(" s, but")[0][-1] for one in said_of_headers(folder)] == ["2", "1"]
