import csv
import re
import sys

import pytest

from giblet.cli import main


def giblet(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["giblet", *map(str, arguments)])
    main()


def test_train_reports_and_leaves_files(simulated, tmp_path, monkeypatch, capsys):
    arguments = ["train", "--data", simulated, "--output", tmp_path / "out", "--epochs", 2, "--batch-size", 16]
    giblet(monkeypatch, *arguments)
    printed = capsys.readouterr().out
    assert "2 epochs trained" in printed
    assert "SIMULATED data: held-out r over" in printed
    assert "planted networks: smallest z" in printed
    assert printed.strip().splitlines()[-1].startswith("SIMULATED data: the model")
    for name in ("prediction.png", "prediction.csv", "run/best.pt", "run/last.pt", "run/log.jsonl"):
        assert (tmp_path / "out" / name).stat().st_size > 0
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
    with pytest.raises(SystemExit, match="giblet: subject is 'sub-99', expected one of sub-01, sub-02"):
        giblet(monkeypatch, "reconstruct", *films, "--subject", "sub-99")


def test_bad_folder_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"^giblet: .*dataset\.toml is missing: see data/README\.md"):
        giblet(monkeypatch, "train", "--data", tmp_path, "--output", tmp_path / "out")


def test_bad_setting_is_one_sentence(simulated, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="giblet: epochs is 0, expected a positive number"):
        giblet(monkeypatch, "train", "--data", simulated, "--output", tmp_path, "--epochs", 0)


def test_interruption_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr("giblet.cli.load_or_train", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit, match="the same command goes on from the last checkpoint"):
        giblet(monkeypatch, "train", "--data", tmp_path, "--output", tmp_path / "out")


def test_demo_simulates_trains_and_points_to_the_notebooks(simulated, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr("giblet.cli.simulate_dataset", lambda path, random_state: simulated)
    monkeypatch.setattr("giblet.cli.train", lambda *arguments: calls.append(arguments))
    giblet(monkeypatch, "demo", "--output", tmp_path, "--random-state", 3)
    assert calls[0][:2] == (simulated, tmp_path)
    assert calls[0][2].random_state == 3
    names = f"GIBLET_DATA={simulated} GIBLET_RUN={tmp_path}"
    assert re.search(rf"{names} \S+jupyter lab notebooks/", capsys.readouterr().out)
