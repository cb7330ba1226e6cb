"""fMRIPrep derivatives: found by their names, and the same brains as those of a plain folder."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from fmriprep import SPACE, write_derivatives, write_stimuli

from giblet.data import DataFolder, MultimodalDataset, VideoProcessor
from giblet.data.check import describe_folder
from giblet.recipe import open_data

FILM = VideoProcessor(9, 16, 10)
AS_IT_IS = {"confounds": "none", "detrend": False}
SESSIONS = {
    "sub-01": [("ses-a", "ses-a_task-film_run-1"), ("ses-b", "ses-b_task-film_run-2")],
    "sub-02": [("ses-a", "ses-a_task-film_run-01"), ("ses-a", "ses-a_task-film_run-02")],
}
TASKS = {
    "sub-01": [("ses-1", "ses-1_task-dawn"), ("ses-2", "ses-2_task-dusk")],
    "sub-02": [("ses-2", "ses-2_task-dawn"), ("ses-1", "ses-1_task-dusk")],
}
LAYOUTS = {
    "runs": ({}, {"task": "film"}),
    "sessions": ({"names": SESSIONS}, {}),
    "a task for each film": ({"names": TASKS}, {"task": ["dawn", "dusk"]}),
}


@pytest.fixture
def written(simulated, tmp_path):
    """Derivatives without artefacts, and the films and words in a folder of their own."""
    write_stimuli(simulated, tmp_path / "stimuli")
    return write_derivatives(simulated, tmp_path / "fmriprep", artefact=0, drift=0)


def opened(root, **entries) -> DataFolder:
    return DataFolder.open(root, **({"stimuli": root.parent / "stimuli"} | entries))


def features(path, **settings) -> MultimodalDataset:
    return MultimodalDataset(path, video_processor=FILM, progress=False, **settings)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_brains_of_a_plain_folder(simulated, tmp_path, layout):
    """Voxels, splits, pictures and words are the same, up to int16."""
    how, entries = LAYOUTS[layout]
    root = write_derivatives(simulated, tmp_path / "fmriprep", artefact=0, drift=0, **how)
    stimuli = write_stimuli(simulated, tmp_path / "stimuli")
    settings = {"stimuli": stimuli, "lag_trs": 3, "cleaning": AS_IT_IS, "average": True}
    found = features(root, **settings, **entries)
    plain = features(simulated, average=True)
    assert found.subjects == plain.subjects
    for name in ("video", "text", "split", "run", "valid"):
        assert np.array_equal(getattr(found.features, name), getattr(plain.features, name))
    assert np.allclose(found.features.fmri, plain.features.fmri, atol=0.05)
    assert found.folder.run_trs == (64, 62)


def test_what_the_files_tell(written):
    found = opened(written)
    assert (found.tr, found.lag_trs, found.run_trs) == (1.5, 3, (64, 62))
    assert list(found.subjects) == ["sub-01", "sub-02"]
    assert len(found.masks) == 4
    assert str(found.cleaning) == (
        "taken out of each run: nilearn's 'simple' confounds and a straight line"
    )
    text = describe_folder(found)
    for told in (
        "a TR of 1.5 s, as the series say",
        "lag_trs is 3: fMRIPrep does not shift BOLD",
        "task-film run-1, task-film run-2",
        "those common to 4 brain masks",
        "the words of its column 'Narration' are read",
    ):
        assert told in text


def test_the_same_in_dataset_toml(written):
    folder = written.parent / "study"
    folder.mkdir()
    text = 'derivatives = "../fmriprep"\ntask = "film"\nstimuli = "../stimuli"\nlag_trs = 2\n'
    (folder / "dataset.toml").write_text(text + '[cleaning]\nconfounds = "compcor"\n')
    found = DataFolder.open(folder)
    assert found.lag_trs == 2
    assert found.cleaning.confounds == "compcor"
    assert [path.name for path in found.movies] == ["movie_run-1.mp4", "movie_run-2.mp4"]


def test_a_run_that_one_subject_lacks(written):
    """It has NaN there, and the mean is that of the other."""
    for file in written.glob(f"sub-02/func/*run-1_{SPACE}*"):
        file.unlink()
    data = features(written, stimuli=written.parent / "stimuli", cleaning=AS_IT_IS)
    assert "sub-02 has no series of run 1: not measured there" in data.folder.inferred
    first = data.features.run == 0
    assert not data.features.valid[1, first].any()
    assert data.features.valid[1, ~first].sum() == 59
    mean = data.select("train", average=True)
    rows = mean.tr_index[data.features.run[mean.tr_index] == 0]
    assert np.allclose(mean.fmri_mean[rows], data.features.fmri[0, rows], atol=1e-6)


def test_series_of_several_spaces(written):
    for file in written.glob(f"sub-*/func/*_{SPACE}_*"):
        for space in ("space-MNI152NLin6Asym_res-2", "space-T1w"):
            shutil.copy(file, file.with_name(file.name.replace(SPACE, space)))
    found = opened(written)
    assert all("MNI152NLin2009cAsym" in path.name for path in found.series)
    assert any("space-MNI152NLin2009cAsym is taken" in said for said in found.inferred)
    assert "NLin6Asym" in opened(written, space="MNI152NLin6Asym").series[0].name
    with pytest.raises(ValueError, match="has no series of space-MNI305, expected some of"):
        opened(written, space="MNI305")


def test_each_strategy_has_its_series(written):
    """That of ICA-AROMA goes on from series that fMRIPrep writes beside the usual ones."""
    for file in written.glob("sub-*/func/*_desc-preproc_bold.*"):
        shutil.copy(file, file.with_name(file.name.replace("preproc", "smoothAROMAnonaggr")))
    usual, aroma = (opened(written, cleaning={"confounds": x}) for x in ("simple", "ica_aroma"))
    assert all("desc-preproc" in path.name for path in usual.series)
    assert all("desc-smoothAROMAnonaggr" in path.name for path in aroma.series)
    data = features(
        written, stimuli=written.parent / "stimuli", cleaning={"confounds": "ica_aroma"}
    )
    assert data.features.valid.any()


REFUSED = {
    "another task": ({"task": "rest"}, "has no series of task-rest, expected some of film"),
    "a subject": ({"subjects": ["sub-9"]}, "subjects has sub-9, expected some of sub-01, sub-02"),
    "no stimuli": ({"stimuli": "nowhere"}, "nowhere is no folder, but stimuli names it"),
    "both": ({"fmri": "*.nii.gz"}, "has both derivatives and fmri, expected one of them"),
    "no cleaning": ({"cleaning": {"confounds": "best"}}, "expected a table with some of confounds"),
    "a long lag": ({"lag_trs": 20}, "expected at most 15 s, 10 TRs of 1.5 s"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_entries(written, kind):
    entries, message = REFUSED[kind]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        opened(written, **entries)


def test_refused_files(written):
    """Native space, raw data, two files of a run, TRs that differ, confounds that are missing."""
    (series,) = written.glob("sub-01/func/*run-1*preproc_bold.nii.gz")
    (sidecar,) = written.glob("sub-01/func/*run-1*preproc_bold.json")
    sidecar.write_text(json.dumps({"RepetitionTime": 2.0}))
    with pytest.raises(ValueError, match=r"a TR of 2 s and .* of 1\.5 s, expected one of all"):
        opened(written)
    sidecar.unlink()
    assert opened(written).tr == 1.5  # of the header
    shutil.copy(series, series.with_name(series.name.replace("run-1", "run-01")))
    with pytest.raises(ValueError, match="are of one run by their names, expected one file of"):
        opened(written)
    series.with_name(series.name.replace("run-1", "run-01")).unlink()
    next(written.glob("sub-02/func/*run-2*confounds_timeseries.tsv")).unlink()
    with pytest.raises(FileNotFoundError, match="has no table of confounds beside it"):
        opened(written)
    native = written.parent / "native"
    native.mkdir()
    shutil.copy(series, native / "sub-01_task-film_space-T1w_desc-preproc_bold.nii.gz")
    with pytest.raises(ValueError, match="has series in T1w, expected an MNI space"):
        opened(native, derivatives=native)
    (native / "sub-01_task-film_space-T1w_desc-preproc_bold.nii.gz").unlink()
    shutil.copy(series, native / "sub-01_task-film_bold.nii.gz")
    with pytest.raises(FileNotFoundError, match="is not preprocessed, expected desc-preproc"):
        opened(native, derivatives=native)


def test_masks_of_other_grids(written):
    (mask,) = written.glob("sub-01/func/*run-1*brain_mask.nii.gz")
    image = nib.load(mask)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), image.affine), mask)
    with pytest.raises(ValueError, match=r"lies on another grid than .*, expected one of all"):
        features(written, stimuli=written.parent / "stimuli", cleaning=AS_IT_IS)


def test_open_data_and_a_run_again(written, monkeypatch):
    """Entries are kept with the data, so that they open as they were, from anywhere."""
    monkeypatch.chdir(written.parent)
    parts = open_data(
        "fmriprep", task="film", stimuli="stimuli/", video_processor=FILM, progress=False
    )
    kept = parts["train"].provenance["entries"]
    assert kept == {"task": "film", "stimuli": str(written.parent / "stimuli")}
    monkeypatch.chdir("/")
    again = open_data(written, video_processor=FILM, progress=False, **kept)
    assert again["train"].provenance["hash"] == parts["train"].provenance["hash"]
