import csv
import re
import sys

import nibabel as nib
import numpy as np
import pytest
from folders import copy_of

from giblet.cli import main
from giblet.runs import load_run


def giblet(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["giblet", *map(str, arguments)])
    main()


def test_train_reports_and_leaves_files(simulated, tmp_path, monkeypatch, capsys):
    arguments = [
        "train",
        "--data",
        simulated,
        "--output",
        tmp_path / "out",
        "--epochs",
        2,
        "--batch-size",
        16,
    ]
    giblet(monkeypatch, *arguments)
    printed = capsys.readouterr().out
    assert "SIMULATED data: 2 subjects, runs of 64, 62 TRs of 1.5 s: " in printed
    assert "2 of 2 epochs (the most that `epochs` allows); epoch " in printed
    assert "SIMULATED data: held-out r over" in printed
    assert "planted networks: smallest z" in printed
    beside = printed.partition("held-out r beside ridge regression on the same features\n")[2]
    assert " ".join(beside.splitlines()[0].split()).endswith("model network ridge weight of ridge")
    assert printed.strip().splitlines()[-1].startswith("SIMULATED data: the model")
    for name in (
        "prediction.png",
        "prediction.csv",
        "run/merged.pt",
        "run/best.pt",
        "run/log.jsonl",
    ):
        assert (tmp_path / "out" / name).stat().st_size > 0
    brain = nib.load(simulated / "mask.nii.gz")
    outside = np.asarray(brain.dataobj) == 0
    maps = {name: nib.load(tmp_path / f"out/{name}.nii.gz") for name in ("r", "q")}
    for name, empty in (("r", 0), ("q", 1)):
        values = maps[name].get_fdata()
        assert np.array_equal(maps[name].affine, brain.affine)
        assert (values[outside] == empty).all()
        assert np.ptp(values[~outside]) > 0
    assert maps["q"].get_fdata().min() >= 0
    assert np.abs(maps["r"].get_fdata()).max() <= 1 == maps["q"].get_fdata().max()
    with (tmp_path / "out/prediction.csv").open() as file:
        rows = {row["network"]: row for row in csv.DictReader(file)}
    assert rows["Visual"]["simulated from"] == "pictures"
    assert rows["Reward"]["simulated from"] == "nothing"
    assert -1 < float(rows["Visual"]["r"]) < 1
    giblet(monkeypatch, *arguments)
    assert capsys.readouterr().out.replace("\n", "").endswith(printed.replace("\n", "")[-200:])
    films = ["--checkpoint", tmp_path / "out", "--out", tmp_path / "films"]
    giblet(monkeypatch, "reconstruct", *films, "--subject", "sub-02")
    assert "SIMULATED data" in capsys.readouterr().out
    assert (tmp_path / "films/films.mp4").stat().st_size > 0
    with pytest.raises(
        SystemExit, match="giblet: subject is 'sub-99', expected one of sub-01, sub-02"
    ):
        giblet(monkeypatch, "reconstruct", *films, "--subject", "sub-99")


def test_settings_of_data_and_model_reach_them(simulated, tmp_path, monkeypatch, capsys):
    settings = ["--context", 1, 0, "--test-runs", 1, "--width", 1 / 128, "--subjects", "sub-02"]
    out = ["--data", simulated, "--out", tmp_path / "out", "--epochs", 1]
    giblet(monkeypatch, "train", *out, *settings)
    assert "SIMULATED data" in capsys.readouterr().out
    run = load_run(tmp_path / "out", progress=False)
    whole = run.data["all"]
    assert whole.subjects == ["sub-02"]
    assert whole.offsets.tolist() == [-1, 0]
    assert set(run.data["test"].run) == {1}
    assert set(run.data["train"].run) == {0}
    assert run.model.get_config()["width"] == 1 / 128
    with pytest.raises(SystemExit, match=r"^giblet: .*other model settings, width=0\.0078125"):
        giblet(monkeypatch, "train", *out, *settings[:-4], "--width", 1 / 64, *settings[-2:])


def test_wrong_settings_are_one_sentence(simulated, tmp_path, monkeypatch):
    train = ["train", "--data", simulated, "--out", tmp_path / "out"]
    for given, message in (
        (["--subjects", "sub-99"], r"subjects are .*'sub-99'.*, expected 'all' or some of"),
        (["--test-runs", 7], r"test_runs are \[7\], expected some of 0 to 1, not all"),
        (["--width", 0], "width is 0.0, expected a positive number"),
        (["--width", -1], "width is -1.0, expected a positive number"),
        (["--width", "nan"], "width is nan, expected a positive number"),
        (["--epochs", -1], "epochs is -1, expected a positive number"),
        (["--batch-size", 0], "batch_size is 0, expected a positive number"),
        (["--learning-rate", "nan"], "learning_rate is nan, expected a positive number"),
        (["--device", "gpu0"], "device is 'gpu0', expected 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        (["--context", -1, 0], r"context is \(-1, 0\), expected TRs \(before, after\), 0 or more"),
    ):
        with pytest.raises(SystemExit, match=f"^giblet: {message}"):
            giblet(monkeypatch, *train, *given)
    assert not (tmp_path / "out").exists()


def test_entries_of_the_folder_are_its_settings(simulated, tmp_path, monkeypatch):
    data = copy_of(simulated, tmp_path / "data")
    text = (data / "dataset.toml").read_text()
    entries = 'subjects = ["sub-02"]\ncontext = [0, 1]\ntest_runs = [0]\n'
    (data / "dataset.toml").write_text(entries + text)
    giblet(monkeypatch, "train", "--data", data, "--out", tmp_path / "out", "--epochs", 1)
    run = load_run(tmp_path / "out", progress=False)
    assert run.data["all"].subjects == ["sub-02"]
    assert run.data["all"].offsets.tolist() == [0, 1]
    assert set(run.data["test"].run) == {0}
    (data / "dataset.toml").write_text(entries.replace("sub-02", "sub-9") + text)
    message = r"^giblet: subjects in .*dataset\.toml has sub-9, expected some of sub-01, sub-02"
    with pytest.raises(SystemExit, match=message) as refused:
        giblet(monkeypatch, "train", "--data", data, "--out", tmp_path / "other")
    assert str(refused.value).count(". ") == 0


def test_bad_folder_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(
        SystemExit, match=r"^giblet: .*dataset\.toml is missing: see data/README\.md"
    ):
        giblet(monkeypatch, "train", "--data", tmp_path, "--output", tmp_path / "out")


def test_bad_setting_is_one_sentence(simulated, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="giblet: epochs is 0, expected a positive number"):
        giblet(monkeypatch, "train", "--data", simulated, "--output", tmp_path, "--epochs", 0)


def test_interruption_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "giblet.runs.load_or_train", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(SystemExit, match="the same command goes on from the last checkpoint"):
        giblet(monkeypatch, "train", "--data", tmp_path, "--output", tmp_path / "out")


def test_demo_simulates_trains_and_points_to_the_notebooks(
    simulated, tmp_path, monkeypatch, capsys
):
    calls = []
    monkeypatch.setattr(
        "giblet.data.simulation.simulate_dataset", lambda path, random_state: simulated
    )
    monkeypatch.setattr("giblet.cli.train", lambda *arguments: calls.append(arguments))
    giblet(monkeypatch, "demo", "--output", tmp_path, "--random-state", 3)
    assert calls[0][:2] == (simulated, tmp_path)
    assert calls[0][2].random_state == 3
    names = f"GIBLET_DATA={simulated} GIBLET_RUN={tmp_path}"
    assert re.search(rf"{names} \S+jupyter lab notebooks/", capsys.readouterr().out)
