import numpy as np
import pandas as pd
import pytest
import torch

from giblet.analysis.reconstruction import SOURCES
from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor
from giblet.models import MultimodalAutoencoder
from giblet.report import shown_path, write_reconstructions


@pytest.fixture(scope="module")
def test_split(simulated) -> MultimodalDataset:
    processors = {
        "video_processor": VideoProcessor(12, 16, frame_skip=4),
        "audio_processor": AudioProcessor("mel"),
    }
    return MultimodalDataset(simulated, split="test", average=True, **processors, progress=False)


@pytest.fixture(scope="module")
def model(test_split) -> MultimodalAutoencoder:
    torch.manual_seed(0)
    return MultimodalAutoencoder(**test_split.model_dims, bottleneck_dim=8, width=1 / 64).eval()


def test_everything_is_written(test_split, model, tmp_path):
    table = write_reconstructions(model, test_split, tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    films = {f"{name}.mp4" for name in ("films", "movie", *SOURCES)}
    figures = {f"{name}.png" for name in ("film_strips", "spectrograms", "identification")}
    assert written == films | figures | {"scores.csv", "table.csv", "text.csv"}
    order = ["ceiling", "raw", "predicted", "measured", "ridge", "shifted", "mean"]
    assert table.columns.tolist() == list(SOURCES) == order
    assert table.columns.name == "SIMULATED data"
    assert len((tmp_path / "out/text.csv").read_text().splitlines()) == test_split.n_trs + 1
    scores = pd.read_csv(tmp_path / "out/scores.csv", header=[0, 1, 2], index_col=0)
    assert np.array_equal(scores.index, test_split.tr_index)


def test_paths_are_shown_as_a_shell_takes_them(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "out") == "out"
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert shown_path(tmp_path / "out") == f"~/{tmp_path.name}/out"
    monkeypatch.setenv("HOME", str(elsewhere))
    assert shown_path(tmp_path / "out") == str(tmp_path / "out")


def nobody(uid):
    raise KeyError(uid)


@pytest.mark.parametrize("home", [None, "/", "", "somewhere"])
def test_paths_are_absolute_for_a_user_without_a_home(tmp_path, monkeypatch, home):
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME")
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert shown_path(tmp_path / "out") == str(tmp_path / "out")
