import json
import os
import shutil
import unicodedata

import nibabel as nib
import numpy as np
import pytest

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
    assert found.planted["Visual"] == ["pictures"]


def test_nothing_is_planted_in_real_data(folder):
    description = folder / "dataset.toml"
    description.write_text(description.read_text().split("[simulation]")[0])
    assert DataFolder.open(folder).planted == {}


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


TOML = {"tr": "1.5", "lag_trs": "0", "movies": '["film.mp4"]', "fmri": '"*.nii.gz"'}
N_TRS = 8
AFFINE = np.diag([8.0, 8, 8, 1])


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
    path.parent.mkdir(parents=True, exist_ok=True)
    series = np.full((1, 1, 1, n_trs), number, np.int16)
    nib.save(nib.Nifti1Image(series, AFFINE), path)
    return path


def refused(path, *words: str, error: type = ValueError) -> None:
    with pytest.raises(error) as found:
        DataFolder.open(path)
    assert type(found.value) is error
    for word in words:
        assert word in str(found.value)


BAD = {
    "tr": ['"1.5"', "0", "-1.5", "1500", "nan", "inf", "true", "[1.5]", "2026-01-01"],
    "lag_trs": ["-2", "4.5", "true", '"3"', "8", "nan"],
    "movies": ['"film.mp4"', "[]", "[1]", '[""]', "{a = 1}", '["."]'],
    "fmri": ['["*.nii.gz"]', '""', '" "', "3", '"."', '"*"', '"/"'],
    "run_trs": ["8", "[8.0]", "[]", "[-8]", "[0, 8]", "[7]", "[4, 5]", "[true]", "[[8]]"],
    "skip_trs": ["5", "[-3]", "[]", "[0, 0]", "[8]", "[1.0]"],
    "subjects": ['"sub-01"', "[]", '["sub-01", "sub-01"]', '["sub-03"]', "[1]"],
    "context": ["2", "[2]", "[-1, 0]", "[1.0, 0]", "[0, 0, 0]", "[8, 0]"],
    "test_runs": ["[1]", "[0]", "[-1]", "0", "[0, 0]", "[true]"],
    "mask": ["3", '["a"]', '""', '"."'],
    "regions": ["3", '["a"]', '""', '"."'],
    "simulation": ["true", '"yes"', "[]"],
}


@pytest.mark.parametrize(("name", "value"), [(n, value) for n in BAD for value in BAD[n]])
def test_every_entry_has_a_type_and_a_range(tmp_path, name, value):
    refused(write_folder(tmp_path, **{name: value}), name, "dataset.toml", "expected")


@pytest.mark.parametrize(
    ("name", "value", "partner"),
    [
        *(("text_columns", value, "annotations") for value in ('"N"', "[]", '["N", "N"]', "[3]")),
        *(("annotations", value, "text_columns") for value in ("3", '""', '["a"]')),
        *(("region_names", value, "regions") for value in ("3", "[]", "[1]", '""')),
    ],
)
def test_entries_that_come_in_pairs(tmp_path, name, value, partner):
    given = {name: value, partner: '["N"]' if partner == "text_columns" else '"film.mp4"'}
    refused(write_folder(tmp_path, **given), f"{name} in ", "dataset.toml", "expected")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("test_run", "test_runs"), ("movie", "movies"), ("Context", "context"), ("skips_tr", None)],
)
def test_names_of_entries_that_are_close(tmp_path, wrong, right):
    refused(write_folder(tmp_path, **{wrong: "[1]"}), f"write {right or 'skip_trs'} for {wrong}")


def test_entries_in_the_wrong_place(tmp_path):
    folder = write_folder(tmp_path)
    with (folder / "dataset.toml").open("a") as file:
        file.write("[simulation]\nrandom_state = 0\ncontext = [1, 0]\n")
    refused(folder, "dataset.toml has context below [simulation], where it is not read")


def test_an_entry_twice(tmp_path):
    folder = write_folder(tmp_path)
    with (folder / "dataset.toml").open("a") as file:
        file.write("tr = 2.0\n")
    refused(folder, "dataset.toml is not valid TOML: Cannot overwrite a value (at line 5")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_encodings_that_are_read(tmp_path, encoding):
    folder = write_folder(tmp_path)
    text = "# Größe\r\n" + (folder / "dataset.toml").read_text().replace("\n", "\r\n")
    (folder / "dataset.toml").write_bytes(text.encode(encoding))
    assert DataFolder.open(folder).run_trs == (N_TRS,)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
def test_encodings_that_are_refused(tmp_path, encoding):
    folder = write_folder(tmp_path)
    text = "# Größe\n" + (folder / "dataset.toml").read_text()
    (folder / "dataset.toml").write_bytes(text.encode(encoding))
    refused(folder, "dataset.toml", "expected UTF-8: save it as UTF-8")


def test_description_that_is_no_file(tmp_path):
    (tmp_path / "dataset.toml").mkdir()
    refused(tmp_path, "dataset.toml cannot be read as a text file (Is a directory)")


@pytest.mark.parametrize(
    "truth", ["", "{", "[]", "{}", '{"planted": 3}', '{"planted": {"Visual": 3}}', "[" * 100_000]
)
def test_damaged_truth(folder, truth):
    (folder / "truth.json").unlink()
    (folder / "truth.json").write_text(truth)
    with pytest.raises(ValueError, match=r"truth\.json is damaged, expected the truth that"):
        _ = DataFolder.open(folder).planted


def test_truth_of_old(folder):
    found = json.loads((folder / "truth.json").read_text())["planted"]
    assert DataFolder.open(folder).planted == found


NAMES = {
    "stems": (["sub-01_bold.nii.gz", "sub-02_bold.nii"], ["sub-01_bold", "sub-02_bold"]),
    "folders of subjects": (
        ["sub-01/bold.nii.gz", "sub-02/bold.nii.gz", "sub-10/bold.nii.gz"],
        ["sub-01", "sub-02", "sub-10"],
    ),
    "folders below": (["sub-1/func/b.nii.gz", "sub-2/func/b.nii.gz"], ["sub-1", "sub-2"]),
    "other folders": (["s2/b.nii.gz", "s10/b.nii.gz", "b.nii.gz"], ["b", "s2/b", "s10/b"]),
    "some stems equal": (["x/a.nii.gz", "y/a.nii.gz", "z/c.nii.gz"], ["x/a", "y/a", "c"]),
    "letter case": (["Sub-a.nii.gz", "sub-A.nii.gz", "sub-a.nii.gz"], ["Sub-a", "sub-A", "sub-a"]),
    "no whole numbers": (["sub-²1.nii.gz", "sub-².nii.gz"], ["sub-²1", "sub-²"]),
    "hyphens": (["sub-con-1.nii.gz", "sub-con-2.nii.gz"], ["sub-con-1", "sub-con-2"]),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_subjects(tmp_path, kind):
    files, names = NAMES[kind]
    found = DataFolder.open(write_folder(tmp_path / "sub-x", files, fmri='"**/*.nii*"'))
    assert list(found.subjects) == names
    assert sorted(found.subjects.values()) == sorted(tmp_path / "sub-x" / name for name in files)


ONE_SUBJECT = {
    "runs": ["sub-01_task-film_run-1_bold.nii.gz", "sub-01_task-film_run-2_bold.nii.gz"],
    "sessions": ["sub-01/ses-1/sub-01_ses-1_b.nii.gz", "sub-01/ses-2/sub-01_ses-2_b.nii.gz"],
    "sessions, one name": ["sub-01/ses-1/b.nii.gz", "sub-01/ses-2/b.nii.gz"],
    "echoes": ["sub-01_echo-1_bold.nii.gz", "sub-01_echo-2_bold.nii.gz"],
    "spaces": ["sub-01_space-MNI_bold.nii.gz", "sub-01_space-T1w_bold.nii.gz"],
    "tasks": ["sub-01_task-film_bold.nii.gz", "sub-01_task-rest_bold.nii.gz"],
    "endings": ["sub-01_bold.nii", "sub-01_bold.nii.gz"],
    "prefixes": ["swsub-01_bold.nii.gz", "wsub-01_bold.nii.gz"],
    "sites": ["a/sub-01.nii.gz", "b/sub-01.nii.gz"],
    "runs without a label": ["s1_run1.nii.gz", "s1_run2.nii.gz"],
    "runs in a folder": ["s1/run-01.nii.gz", "s1/run-02.nii.gz"],
    "sessions without a label": ["s1/ses-1/bold.nii.gz", "s1/ses-2/bold.nii.gz"],
    "endings without a label": ["s1.nii", "s1.nii.gz"],
}


@pytest.mark.parametrize("kind", ONE_SUBJECT)
def test_several_files_of_one_subject(tmp_path, kind):
    one, other = ONE_SUBJECT[kind]
    folder = write_folder(tmp_path, [one, other, "sub-02.nii.gz"], fmri='"**/*.nii*"')
    refused(
        folder,
        f"{folder / one} and {folder / other} are of one subject by their names, expected one file",
        "join its runs one after the other",
    )


def test_one_run_of_each_subject_is_chosen(tmp_path):
    files = [f"sub-{subject}_run-{run}.nii.gz" for subject in (1, 2) for run in (1, 2)]
    folder = write_folder(tmp_path, files, subjects='["sub-1_run-2", "sub-2_run-1"]')
    assert list(DataFolder.open(folder).subjects) == ["sub-1_run-2", "sub-2_run-1"]
    folder = write_folder(tmp_path, files, fmri='"*run-1*"')
    assert list(DataFolder.open(folder).subjects) == ["sub-1_run-1", "sub-2_run-1"]


def test_names_composed_otherwise(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "sub-é") for form in ("NFC", "NFD"))
    folder = write_folder(tmp_path / "one", [f"{nfd}.nii.gz"], subjects=f'["{nfc}"]')
    assert list(DataFolder.open(folder).subjects) == [nfd]
    both = write_folder(tmp_path / "two", [f"{nfc}.nii.gz", f"{nfd}.nii.gz"])
    assert set(DataFolder.open(both).subjects) == {nfc, nfd}


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_one_file_under_two_names(tmp_path, link):
    folder = write_folder(tmp_path, ["sub-01.nii.gz"])
    link(folder / "sub-01.nii.gz", folder / "sub-02.nii.gz")
    one, other = folder / "sub-01.nii.gz", folder / "sub-02.nii.gz"
    refused(folder, f"{one} and {other} are the same file, expected one per subject")


def test_copies_are_named(tmp_path):
    folder = write_folder(tmp_path)
    assert not any("same bytes" in sentence for sentence in DataFolder.open(folder).inferred)
    one, other = folder / "sub-01.nii.gz", folder / "sub-02.nii.gz"
    shutil.copy(one, other)
    said = f"{one} and {other} hold the same bytes, but count as two subjects"
    assert said in DataFolder.open(folder).inferred


def test_hidden_files_are_no_subjects(tmp_path):
    folder = write_folder(tmp_path, ["a.nii.gz", "b.nii.gz"], fmri='"**/*.nii.gz"')
    (folder / "._a.nii.gz").write_bytes(b"\0\5\26\7Mac OS X")
    write_brain(folder / ".git/annex/c.nii.gz")
    assert list(DataFolder.open(folder).subjects) == ["a", "b"]


def test_patterns_of_other_places(tmp_path, monkeypatch):
    for number in (1, 2):
        write_brain(tmp_path / f"store/p{number}/bold.nii.gz", number)
    monkeypatch.setenv("HOME", str(tmp_path))
    for pattern in (f"{tmp_path}/store/*/*.nii.gz", "../store/*/*.nii.gz", "~/store/*/*.nii.gz"):
        folder = write_folder(tmp_path / "data", [], fmri=f'"{pattern}"')
        found = DataFolder.open(folder).subjects
        assert list(found) == ["p1/bold", "p2/bold"]
        assert [path.resolve() for path in found.values()] == [
            tmp_path / f"store/p{number}/bold.nii.gz" for number in (1, 2)
        ]


def test_brains_that_are_not_there_yet(tmp_path):
    folder = write_folder(tmp_path, ["sub-01.nii.gz"])
    (folder / "sub-02.nii.gz").symlink_to(".git/annex/objects/x")
    refused(folder, "sub-02.nii.gz is a link to", "which is missing", error=FileNotFoundError)
    (folder / "sub-02.nii.gz").unlink()
    (folder / "sub-02.nii.gz").touch()
    refused(folder, "sub-02.nii.gz is empty")
