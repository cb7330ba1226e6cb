"""One series per subject, or one a run, and a name of its own for each."""

import os
import shutil
import unicodedata

import nibabel as nib
import numpy as np
import pytest
from folders import N_TRS, copy_of, refused, without, write_brain, write_folder

from giblet.data import DataFolder, MultimodalDataset, VideoProcessor

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
    series = [(tmp_path / "sub-x" / name,) for name in files]
    assert sorted(found.subjects.values()) == sorted(series)


RUNS = {
    "runs": ["sub-01_task-film_run-1_bold.nii.gz", "sub-01_task-film_run-2_bold.nii.gz"],
    "sessions": ["sub-01/ses-1/sub-01_ses-1_b.nii.gz", "sub-01/ses-2/sub-01_ses-2_b.nii.gz"],
    "sessions, one name": ["sub-01/ses-1/b.nii.gz", "sub-01/ses-2/b.nii.gz"],
    "runs without a label": ["s1_run1.nii.gz", "s1_run2.nii.gz"],
    "runs in a folder": ["s1/run-01.nii.gz", "s1/run-02.nii.gz"],
    "sessions without a label": ["s1/ses-1/bold.nii.gz", "s1/ses-2/bold.nii.gz"],
    "capitals": ["s1_Run1.nii.gz", "s1_Run2.nii.gz"],
    "hyphens": ["s1-run1.nii.gz", "s1-run2.nii.gz"],
    "dots": ["s1.run1.nii.gz", "s1.run2.nii.gz"],
    "numbers apart": ["s1_run_01.nii.gz", "s1_run_02.nii.gz"],
    "one letter": ["s1_r1.nii.gz", "s1_r2.nii.gz"],
    "folders of runs": ["Run1/s1.nii.gz", "Run2/s1.nii.gz"],
    "folders of sessions": ["session1/s1.nii.gz", "session2/s1.nii.gz"],
}
ONE_SUBJECT = {
    "one run": ["sub-01_run-1_bold.nii.gz", "sub-01_run-01_bold.nii.gz"],
    "echoes": ["sub-01_echo-1_bold.nii.gz", "sub-01_echo-2_bold.nii.gz"],
    "spaces": ["sub-01_space-MNI_bold.nii.gz", "sub-01_space-T1w_bold.nii.gz"],
    "tasks": ["sub-01_task-film_bold.nii.gz", "sub-01_task-rest_bold.nii.gz"],
    "endings": ["sub-01_bold.nii", "sub-01_bold.nii.gz"],
    "prefixes": ["swsub-01_bold.nii.gz", "wsub-01_bold.nii.gz"],
    "sites": ["a/sub-01.nii.gz", "b/sub-01.nii.gz"],
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


@pytest.mark.parametrize("kind", RUNS)
def test_runs_in_files_of_their_own(tmp_path, kind):
    one, other = RUNS[kind]
    folder = write_folder(tmp_path, [other, one], fmri='"**/*.nii*"')
    found = DataFolder.open(folder)
    assert list(found.subjects.values()) == [(folder / one, folder / other)]
    assert found.run_trs == (N_TRS, N_TRS)
    assert f"2 runs of {N_TRS}, {N_TRS} TRs, the length of the series" in found.inferred


@pytest.mark.parametrize("kind", RUNS)
def test_names_without_the_labels_of_the_others(tmp_path, kind):
    folder = write_folder(tmp_path, [*RUNS[kind], "sub-02.nii.gz"], fmri='"**/*.nii*"')
    refused(folder, "sub-02.nii.gz, whose name has not the labels of the others, expected a file")


def test_a_run_that_one_subject_lacks(tmp_path):
    names = [f"sub-{subject}_run-{run}.nii" for subject in (1, 2) for run in (1, 2)]
    folder = write_folder(tmp_path, [names[0], *names[2:]], fmri='"*.nii"')
    found = DataFolder.open(folder)
    assert found.subjects == {
        "sub-1": (folder / names[0], None),
        "sub-2": (folder / names[2], folder / names[3]),
    }
    assert "sub-1 has no series of run 2: not measured there" in found.inferred
    assert found.run_trs == (N_TRS, N_TRS)


def test_runs_are_numbers_and_go_on_through_sessions(tmp_path):
    """Ten comes after two, run-1 is run-01, and a run counts wherever it was scanned."""
    files = [
        "sub-1/ses-a/sub-1_ses-a_run-10_bold.nii",
        "sub-1/ses-b/sub-1_ses-b_run-2_bold.nii",
        "sub-2/ses-a/sub-2_ses-a_run-02_bold.nii",
        "sub-2/ses-a/sub-2_ses-a_run-10_bold.nii",
    ]
    folder = write_folder(tmp_path, files, fmri='"**/*.nii"')
    found = DataFolder.open(folder).subjects
    assert found == {
        "sub-1": (folder / files[1], folder / files[0]),
        "sub-2": (folder / files[2], folder / files[3]),
    }


def test_runs_of_each_session(tmp_path):
    names = [f"sub-1/ses-{ses}/sub-1_ses-{ses}_run-{run}.nii" for ses in (1, 2) for run in (1, 2)]
    folder = write_folder(tmp_path, names[::-1], fmri='"**/*.nii"')
    assert DataFolder.open(folder).subjects == {"sub-1": tuple(folder / name for name in names)}


def test_some_subjects_with_their_runs(tmp_path):
    names = [f"sub-{subject}_run-{run}.nii" for subject in (1, 2) for run in (1, 2)]
    folder = write_folder(tmp_path, names, fmri='"*.nii"', subjects='["sub-2"]')
    assert DataFolder.open(folder).subjects == {
        "sub-2": (folder / names[2], folder / names[3]),
    }
    refused(
        write_folder(tmp_path, names, fmri='"*.nii"', subjects='["sub-3"]'),
        "subjects in ",
        "has sub-3, expected some of sub-1, sub-2",
    )


def test_runs_of_other_lengths(tmp_path):
    names = [f"sub-{subject}_run-{run}.nii" for subject in (1, 2) for run in (1, 2)]
    folder = write_folder(tmp_path, names, fmri='"*.nii"', run_trs=[N_TRS, N_TRS - 1])
    refused(folder, f"but run 2 has {N_TRS} TRs in", names[1], "expected the same: mend run_trs")
    refused(write_folder(tmp_path, names, fmri='"*.nii"', run_trs=[N_TRS]), "series of 2 runs")
    names += ["sub-3_run-1.nii", "sub-3_run-2.nii"]
    folder = write_folder(tmp_path, names, fmri='"*.nii"')
    write_brain(folder / names[3], 3, N_TRS - 1)
    write_brain(folder / names[0], 0, N_TRS + 2)
    found = DataFolder.open(folder)
    assert found.run_trs == (N_TRS, N_TRS)
    said = [
        f"run 1 has {N_TRS} TRs, but {names[0]} has {N_TRS + 2} (2 cropped at its end)",
        f"run 2 has {N_TRS} TRs, but {names[3]} has {N_TRS - 1} (1 not measured)",
    ]
    assert set(said) <= set(found.inferred)


def test_runs_seen_in_another_order(tmp_path):
    names = [f"sub-{subject}_run-{run}.nii" for subject in (1, 2) for run in (1, 2, 3)]
    folder = write_folder(tmp_path, names, fmri='"*.nii"', run_order="{sub-2 = [2, 3, 1]}")
    one, other = DataFolder.open(folder).subjects.values()
    assert [path.name for path in one] == names[:3]
    assert [path.name for path in other] == [names[5], names[3], names[4]]
    folder = write_folder(tmp_path, names, fmri='"*.nii"', run_order="{sub-2 = [2, 1]}")
    refused(folder, "run_order in ", "has sub-2 = [2, 1], expected one of sub-1, sub-2 and each")


def test_trs_before_the_film(tmp_path):
    """Series of their own lengths begin where they are told to, joined ones as well."""
    names = [f"sub-{subject}_run-{run}.nii" for subject in (1, 2) for run in (1, 2)]
    starts = "{sub-1 = [2, 0], sub-2 = [0, 1]}"
    folder = write_folder(tmp_path / "a", names, fmri='"*.nii"', series_starts=starts)
    write_brain(folder / names[0], 0, N_TRS + 2)
    write_brain(folder / names[3], 3, N_TRS + 1)
    found = DataFolder.open(folder)
    assert found.run_trs == (N_TRS, N_TRS)
    assert [piece.trs for piece in found.pieces("sub-1")] == [slice(2, N_TRS + 2), slice(0, N_TRS)]
    joined = write_folder(tmp_path / "b", run_trs=[3, 3], series_starts=[1, 1])
    trs = [piece.trs for piece in DataFolder.open(joined).pieces("sub-01")]
    assert trs == [slice(1, 4), slice(5, 8)]
    refused(write_folder(tmp_path / "c", run_trs=[4, 4], series_starts=[1, 1]), "has 6, expected")
    refused(write_folder(tmp_path / "d", series_starts=[1, 1]), "expected a number for each of 1")


def test_the_same_brains_in_one_file_and_in_one_a_run(simulated, tmp_path):
    """Features of a folder whose runs lie in files of their own are those of the joined series."""
    folder = copy_of(simulated, tmp_path / "data")
    for series in folder.glob("sub-*.nii.gz"):
        whole = nib.load(series)
        subject = series.name.removesuffix(".nii.gz")
        for run, trs in ((1, slice(0, 64)), (2, slice(64, 126))):
            part = nib.Nifti1Image(np.asarray(whole.dataobj)[..., trs], whole.affine, whole.header)
            path = folder / subject / "func" / f"{subject}_task-film_run-{run}_bold.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(part, path)
        series.unlink()
    without(folder / "dataset.toml", "fmri", "run_trs", "annotations", "text_columns")
    with (folder / "dataset.toml").open("a") as file:
        file.write('\nfmri = "sub-*/func/*_bold.nii.gz"\n')
    settings = {"video_processor": VideoProcessor(18, 32, 1), "progress": False}
    one, other = (MultimodalDataset(path, **settings) for path in (simulated, folder))
    assert one.subjects == other.subjects == ["sub-01", "sub-02"]
    for name in ("fmri", "valid", "split", "run"):
        assert np.array_equal(getattr(one.features, name), getattr(other.features, name))


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
    said = f"{one} and {other} hold the same bytes, but count as two series"
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
        assert [path.resolve() for (path,) in found.values()] == [
            tmp_path / f"store/p{number}/bold.nii.gz" for number in (1, 2)
        ]


def test_brains_that_are_not_there_yet(tmp_path):
    folder = write_folder(tmp_path, ["sub-01.nii.gz"])
    (folder / "sub-02.nii.gz").symlink_to(".git/annex/objects/x")
    refused(folder, "sub-02.nii.gz is a link to", "which is missing", error=FileNotFoundError)
    (folder / "sub-02.nii.gz").unlink()
    (folder / "sub-02.nii.gz").touch()
    refused(folder, "sub-02.nii.gz is empty")
