"""Another lab's folder to the end: TR 2 s, ten minutes, regions of its own, 62 test TRs."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from folders import other_lab
from nbclient import NotebookClient

from giblet.data import VideoProcessor
from giblet.recipe import open_data
from giblet.report import report_prediction
from giblet.runs import load_or_train, load_run
from giblet.training import TrainingConfig

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return other_lab(tmp_path_factory.mktemp("labs") / "other")


def printed(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.fixture(scope="module")
def run_dir(folder) -> Path:
    """A run with settings of its own, in context and colour, which the command line reports."""
    film = VideoProcessor(height=18, width=32, frame_skip=10)
    settings = {"context": (1, 0), "video_processor": film, "colour": True}
    run = load_or_train(
        folder, TrainingConfig(epochs=6), folder.with_name("run"), progress=False, **settings
    )
    report_prediction(run, run.folder)
    return run.folder


def test_table_has_the_regions_of_the_folder(folder, run_dir):
    table = pd.read_csv(run_dir / "prediction.csv", index_col=0)
    assert table.index.tolist() == [
        f"slab {letter}" for letter in "bcdefg"
    ]  # a and h lie outside the mask
    assert table["n_voxels"].sum() > 500
    usual = open_data(folder, progress=False)["test"]
    own = load_run(run_dir, progress=False).data["test"]
    assert (usual.n_trs, usual.tr, usual.simulated) == (62, 2.0, False)
    assert own.n_trs == 60  # context widens the gaps
    assert own.video_processor.colour


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * path.stem.startswith("03"))
        for path in NOTEBOOKS
    ],
)
def test_notebooks(folder, run_dir, path, monkeypatch, tmp_path):
    """04 to 07 open the run, the others prepare and train by themselves."""
    monkeypatch.setenv("GIBLET_DATA", str(folder))
    if path.stem[:2] in ("04", "05", "06", "07"):
        monkeypatch.setenv("GIBLET_RUN", str(run_dir))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = printed(notebook)
    assert "SIMULATED" not in text
    told = re.findall(r"\((?:expected|unedited notebook).*", text)
    assert len(told) == path.stem.startswith("03")  # which also trains on numbers of its own
