"""A lab's own fMRIPrep folder: by README's lines to a map, to a reconstruction and to a lesion."""

import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest
from fmriprep import write_derivatives, write_stimuli

import giblet as gb
from giblet import cli
from giblet.data import VideoProcessor

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
LINES = next(block for block in BLOCKS if "fmriprep" in block).strip().splitlines()
FILM = VideoProcessor(height=9, width=16, frame_skip=10)
PLANTED = ["Auditory", "DefaultMode", "DorsalAttention", "Visual"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """A film of ten minutes, words in seconds in a csv, five people whom a scanner measured.

    The TR is 2 s, each run is a file, motion and drift are five times the signal, and the first
    volumes are not in steady state.
    """
    path = tmp_path_factory.mktemp("lab")
    simulated = gb.simulate_dataset(
        path / "simulated",
        n_subjects=5,
        run_trs=(153, 153),
        tr=2.0,
        resolution_mm=12,
        progress=False,
    )
    write_derivatives(simulated, path / "derivatives/fmriprep", uncleaned=2)
    stimuli = write_stimuli(simulated, path / "stimuli")
    words = pd.read_excel(stimuli / "annotations.xlsx")
    words = words[["Start Time (s)", "End Time (s)", "Narration"]]
    words.to_csv(stimuli / "words.csv", index=False)
    (stimuli / "annotations.xlsx").unlink()
    return path


def run_line(line: str, monkeypatch) -> None:
    """A line of README whose command is `giblet`."""
    words = shlex.split(line, comments=True)
    monkeypatch.setattr(sys, "argv", ["giblet", *words[1:]])
    cli.main()


def test_readme_takes_six_lines_from_install_to_a_map(lab, monkeypatch, capsys):
    assert len(LINES) <= 6
    monkeypatch.chdir(lab)
    *_, check, train = LINES
    run_line(check, monkeypatch)
    told = capsys.readouterr().out
    assert "5 subjects, 2 runs, 10.2 min with a TR of 2 s" in told
    run_line(train, monkeypatch)
    told = capsys.readouterr().out
    summary = "5 subjects, runs of 153, 153 TRs of 2 s: 150 train, 38 val, 62 test"
    assert told.index(summary) < told.index("held-out r over 62 test TRs")
    out = Path(shlex.split(train, comments=True)[-1])
    for name in ("prediction.png", "r.nii.gz", "q.nii.gz"):
        assert (out / name).stat().st_size > 1000


def test_what_was_planted_is_found(lab, monkeypatch):
    """In the map beside its null and ridge, in the reconstruction and in the lesions."""
    monkeypatch.chdir(lab)
    run = gb.load_run("my-film")
    prediction = gb.Prediction(run.model, run.data["all"])
    table = prediction.network_table()
    assert (table.loc[PLANTED, "p"] < 0.05).all()
    assert (table.drop(PLANTED)["z"].abs() < 3).all()
    compared = prediction.comparison_table()
    model, ridge = (compared[name, "r"]["mean of regions"] for name in ("model", "ridge"))
    assert model > ridge - 0.02
    measured = gb.Reconstruction(run.model, run.data["test"], "measured")
    lesions = gb.region_sweep(gb.Lesion(measured.brain), prediction.regions)
    followed = {"Visual": "video", "Auditory": "audio", "DefaultMode": "text"}
    for network, stimulus in followed.items():
        effects = lesions[stimulus]["effect"]
        assert effects.idxmax() == network
        assert lesions[stimulus]["p"][network] < 0.05


WRONG = {
    "tr": ({"tr": 1.5}, "the header states a TR of 2 s, but"),
    "lag": ({"lag_trs": 0}, "but lag_trs is 0: make sure of it"),
    "cleaning": (
        {"cleaning": {"confounds": "none", "detrend": False}},
        "fMRIPrep leaves confounds and drift in these series, and no cleaning is asked for",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_settings_are_named(lab, kind, capsys):
    entries, said = WRONG[kind]
    gb.MultimodalDataset(
        lab / "derivatives/fmriprep", stimuli=lab / "stimuli", video_processor=FILM, **entries
    )
    assert said in capsys.readouterr().out
