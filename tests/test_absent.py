"""A folder without a sheet and without sound, through training, decoding and notebooks."""

import shutil
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from folders import mute, without
from nbclient import NotebookClient

from giblet.cli import main
from giblet.data import simulate_dataset
from giblet.data.audio import RATE, read_sound
from giblet.data.media import write_movie
from giblet.explorer import LesionExplorer
from giblet.runs import load_run

STILL = {
    "pictures": ("audio", "text"),
    "pictures sound": ("text",),
    "pictures sheet": ("audio",),
}
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Data that lack one modality or two, not marked as simulated: notebooks print what comes."""
    whole = tmp_path_factory.mktemp("absent") / "whole"
    simulate_dataset(whole, n_subjects=2, run_trs=(124, 120), resolution_mm=12, progress=False)
    found = {}
    for name in ("sheet", "sound", "both", *STILL, "all"):
        gone = {"both": "sheet sound", "all": "sheet sound pictures"}.get(name, name)
        found[name] = shutil.copytree(whole, whole.with_name(name))
        without(
            found[name] / "dataset.toml", *(["annotations", "text_columns"] * ("sheet" in gone))
        )
        for movie in found[name].glob("*.mp4"):
            if "pictures" in gone:
                stand_still(movie)
            if "sound" in gone:
                mute(movie)
    return found


def stand_still(movie: Path) -> None:
    """The same picture all the time, with the sound of the movie."""
    sound = read_sound(movie)
    picture = np.full((48, 64, 3), 90, np.uint8)
    write_movie(movie, (picture for _ in range(round(len(sound) / RATE * 25))), 25, sound, RATE)


def giblet(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["giblet", *map(str, arguments)])
    main()


@pytest.mark.parametrize(
    ("name", "present"), [("sheet", ["video", "audio"]), ("sound", ["video", "text"])]
)
def test_training_and_reconstruction(folders, name, present, tmp_path, monkeypatch, capsys):
    giblet(
        monkeypatch, "train", "--data", folders[name], "--output", tmp_path / "run", "--epochs", 2
    )
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("the model predicts held-out responses")
    giblet(
        monkeypatch, "reconstruct", "--checkpoint", tmp_path / "run", "--out", tmp_path / "films"
    )
    written = {path.name for path in (tmp_path / "films").iterdir()}
    assert {"films.mp4", "table.csv", "film_strips.png"} <= written
    assert ("text.csv" in written) == ("text" in present)
    assert ("spectrograms.png" in written) == ("audio" in present)
    table = pd.read_csv(tmp_path / "films/table.csv", index_col=[0, 1])
    assert table.index.unique(0).tolist() == present


@pytest.mark.parametrize("name", STILL)
def test_movie_whose_pictures_stand_still(folders, name, tmp_path, monkeypatch):
    """Trained, reconstructed and lesioned without pictures, and without what else is missing."""
    giblet(monkeypatch, "train", "--data", folders[name], "--out", tmp_path / "run", "--epochs", 1)
    giblet(monkeypatch, "reconstruct", "--checkpoint", tmp_path / "run", "--out", tmp_path / "out")
    run = load_run(tmp_path / "run", progress=False)
    assert run.data["test"].present == STILL[name]
    assert run.model.get_config()["video_dim"] == 0
    table = pd.read_csv(tmp_path / "out/table.csv", index_col=[0, 1])
    assert tuple(table.index.unique(0)) == STILL[name]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    audio = {"measured.wav", "predicted.wav", "movie.wav", "spectrograms.png"}
    assert not [file for file in written if file.endswith(".mp4") or file == "film_strips.png"]
    assert (audio <= written, "text.csv" in written) == (
        "audio" in STILL[name],
        "text" in STILL[name],
    )
    explorer = LesionExplorer(run.model, run.data["test"], n_permute=10)
    explorer.set(units=(0, 2))
    explorer.settle()
    assert tuple(name for name in explorer.effects() if name != "fmri") == STILL[name]
    app = explorer.widget
    assert not app.facts["has"]["video"]
    assert (not app.clip_after, not app.sentences) == (
        "audio" not in STILL[name],
        "text" not in STILL[name],
    )
    explorer.close()


def test_nothing_that_changes_is_one_sentence(folders, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"^giblet: video, audio and text are each missing or"):
        giblet(monkeypatch, "train", "--data", folders["all"], "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * path.stem.startswith("03"))
        for path in NOTEBOOKS
    ],
)
def test_notebooks(folders, path, monkeypatch, tmp_path):
    monkeypatch.setenv("GIBLET_DATA", str(folders["both"]))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
