"""A folder without a sheet and without sound, through training, decoding and notebooks."""

import shutil
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from folders import mute, without
from nbclient import NotebookClient

from giblet.cli import main
from giblet.data import simulate_dataset

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Data that lack one modality or two, not marked as simulated: notebooks print what comes."""
    whole = tmp_path_factory.mktemp("absent") / "whole"
    simulate_dataset(whole, n_subjects=2, run_trs=(124, 120), resolution_mm=12, progress=False)
    found = {}
    for name in ("sheet", "sound", "both"):
        found[name] = shutil.copytree(whole, whole.with_name(name))
        without(
            found[name] / "dataset.toml", *(["annotations", "text_columns"] * (name != "sound"))
        )
        if name != "sheet":
            for movie in found[name].glob("*.mp4"):
                mute(movie)
    return found


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
