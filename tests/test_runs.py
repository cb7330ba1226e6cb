"""A run knows its data: it is opened as it was trained, scored on its own test TRs, or refused."""

import json
import shutil
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from folders import copy_of

from giblet.analysis.lesions import Brain
from giblet.analysis.prediction import Prediction, predict_fmri
from giblet.analysis.reconstruction import reconstruct
from giblet.cli import main
from giblet.data import MultimodalDataset, VideoProcessor
from giblet.recipe import VIDEO, open_data
from giblet.regions import regions_of
from giblet.runs import load_or_train, load_run
from giblet.training import TrainingConfig, load_model

CONFIG = TrainingConfig(epochs=2, batch_size=16)
FILM = VideoProcessor(height=18, width=32, frame_skip=8)
TINY = {"width": 1 / 128, "bottleneck_dim": 8}
SMALL = TINY | {"video_processor": FILM}
OTHER = {
    "fractions": {"fractions": (0.3, 0.2, 0.5)},
    "test_runs": {"test_runs": (0,)},
    "context": {"context": (2, 1)},
    "colour": {"video_processor": replace(FILM, colour=True)},
    "subjects": {"subjects": ["sub-02"]},
}


@pytest.fixture(scope="module")
def trained(simulated, tmp_path_factory):
    """Runs of the simulated folder, by the setting that is not the usual one."""
    runs = {}

    def trained(name: str = ""):
        if name not in runs:
            folder = tmp_path_factory.mktemp("runs") / (name or "usual")
            settings = SMALL | OTHER.get(name, {})
            runs[name] = load_or_train(simulated, CONFIG, folder, progress=False, **settings)
        return runs[name]

    return trained


@pytest.fixture
def train(simulated):
    def train(config: TrainingConfig = CONFIG, **settings):
        return load_or_train(simulated, config, progress=False, **(TINY | settings))

    return train


def kept_epoch(run) -> int:
    """Of the highest smoothed validation r, counted from 1."""
    r = [entry["val"]["r"] for entry in run.history]
    means = [np.mean(r[max(0, epoch - 4) : epoch + 1]) for epoch in range(len(r))]
    return int(np.argmax(means)) + 1


def giblet(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["giblet", *map(str, arguments)])
    main()


def test_trains_once(train, monkeypatch):
    first = train()
    monkeypatch.setattr(
        "giblet.training.trainer.Trainer._train_step", lambda *_: pytest.fail("trained again")
    )
    again = train()
    assert again.folder == first.folder
    assert again.history == first.history
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_other_settings_are_another_run(train):
    runs = [train(), train(TrainingConfig(epochs=2, batch_size=8)), train(bottleneck_dim=4)]
    assert len({run.folder for run in runs}) == 3
    assert runs[2].model.get_config()["bottleneck_dim"] == 4


def test_direct_run_is_another_run(train):
    assert train().folder != train(direct=True).folder


def test_verdict_is_printed_and_logged_once(train, monkeypatch, capsys):
    """Of a network that has learned nothing yet, and is not merged."""

    def refuse(*_):
        raise ValueError("not now")

    monkeypatch.setattr("giblet.runs.merge", refuse)
    first = train(TrainingConfig(epochs=1, batch_size=16, random_state=5))
    assert not first.verdict.above_chance
    assert str(first.verdict) in capsys.readouterr().out
    lines = [json.loads(line) for line in (first.folder / "log.jsonl").read_text().splitlines()]
    assert [line.get("epoch") for line in lines] == [0, None]
    assert lines[1]["kept"] == 0
    assert lines[1]["verdict"]["n_trs"] == first.data["test"].n_trs
    monkeypatch.setattr("giblet.runs.judge", lambda *_: pytest.fail("judged again"))
    again = train(TrainingConfig(epochs=1, batch_size=16, random_state=5))
    assert str(again.verdict) == str(first.verdict)
    assert str(first.verdict) in capsys.readouterr().out


@pytest.mark.parametrize("name", OTHER)
def test_reconstructs_its_own_test_trs(trained, name, tmp_path, monkeypatch):
    run = trained(name)
    giblet(monkeypatch, "reconstruct", "--checkpoint", run.folder, "--out", tmp_path)
    scored = pd.read_csv(tmp_path / "scores.csv", header=[0, 1, 2], index_col=0).index.to_numpy()
    test, train = (run.data[split].tr_index for split in ("test", "train"))
    assert np.array_equal(scored, test)
    assert not set(scored) & set(train)


@pytest.mark.parametrize("name", [name for name in OTHER if name != "subjects"])
def test_the_usual_data_are_refused(trained, simulated, name):
    """By everything that scores: the usual test TRs are others, or hold other features."""
    model = load_model(trained(name).folder)
    usual = open_data(simulated, progress=False, video_processor=FILM)["test"]
    for score in (
        lambda: predict_fmri(model, usual),
        lambda: next(reconstruct(model, usual, "measured")),
        lambda: Brain(model, usual),
    ):
        with pytest.raises(
            ValueError, match="the model was trained on other data than this data set"
        ):
            score()


def test_another_folder_is_refused(trained, simulated, tmp_path, monkeypatch):
    """As many voxels and TRs, and one subject's brain is another."""
    other = copy_of(simulated, tmp_path / "other")
    shutil.copy(other / "sub-01.nii.gz", other / "sub-02.nii.gz")
    with pytest.raises(
        SystemExit, match=r"trained on other data .*other contents of sub-02\.nii\.gz"
    ):
        giblet(
            monkeypatch,
            "reconstruct",
            "--checkpoint",
            trained().folder,
            "--data",
            other,
            "--out",
            tmp_path / "films",
        )
    assert not (tmp_path / "films").exists()


def test_a_folder_that_moved_is_named(trained, simulated, tmp_path):
    run = trained()
    moved = copy_of(simulated, tmp_path / "moved")
    again = load_run(run.folder, moved, progress=False)
    assert again.data["test"].folder.path == moved
    assert torch.equal(
        *(torch.from_numpy(predict_fmri(r.model, r.data["test"])) for r in (run, again))
    )


def test_run_is_opened_as_it_was_trained(trained, monkeypatch):
    run = trained("context")
    for path in (run.folder, run.folder / "best.pt", run.folder / "best.safetensors"):
        again = load_run(path, progress=False)
        assert again.history == run.history
        assert again.verdict == run.verdict
        assert again.settings == run.settings
        assert replace(again.config, device="auto") == replace(run.config, micro_batches=1)
        assert again.data["test"].provenance == run.data["test"].provenance
        assert np.array_equal(again.data["test"].tr_index, run.data["test"].tr_index)
    monkeypatch.delenv("GIBLET_RUN", raising=False)
    with pytest.raises(ValueError, match="no run is named: give run_dir, or set GIBLET_RUN"):
        load_run()


def test_one_run_for_command_line_python_and_notebooks(simulated, tmp_path, monkeypatch, capsys):
    """Where it lies without a name, and by GIBLET_RUN."""
    giblet(monkeypatch, "train", "--data", simulated, "--epochs", 1)
    run = load_or_train(simulated, TrainingConfig(epochs=1), progress=False)
    assert (run.folder / "prediction.csv").is_file()
    monkeypatch.setenv("GIBLET_RUN", str(tmp_path / "mine"))
    giblet(monkeypatch, "train", "--data", simulated, "--epochs", 1, "--batch-size", 20)
    mine = load_or_train(simulated, progress=False)
    assert mine.folder == tmp_path / "mine/run"
    assert (tmp_path / "mine/prediction.csv").is_file()
    assert mine.config.batch_size == 20
    assert load_run(progress=False).folder == mine.folder
    assert load_or_train(simulated, TrainingConfig(epochs=1), progress=False).folder == run.folder


def test_settings_that_are_not_given_are_those_of_the_run(trained, simulated):
    run = trained("fractions")
    again = load_or_train(simulated, run_dir=run.folder, progress=False)
    assert again.history == run.history
    assert again.data["train"].provenance == run.data["train"].provenance
    with pytest.raises(
        ValueError,
        match=r"other data settings, fractions=\[0.3, 0.2, 0.5\] \(now \[0.5, 0.25, 0.25\]",
    ):
        load_or_train(simulated, run_dir=run.folder, progress=False, fractions=(0.5, 0.25, 0.25))
    with pytest.raises(ValueError, match=r"other model settings, width=0.0078125 \(now 0.125\)"):
        load_or_train(simulated, run_dir=run.folder, progress=False, width=1 / 8)


def test_same_run_from_its_own_data_and_settings(trained):
    run = trained("context")
    again = load_or_train(run.data["all"], run.config, run.folder, progress=False, **run.settings)
    assert again.history == run.history


def test_other_subjects_are_another_run(simulated):
    settings = SMALL | {"progress": False}
    runs = [
        load_or_train(simulated, CONFIG, subjects=[name], **settings)
        for name in ("sub-01", "sub-02")
    ]
    assert runs[0].folder != runs[1].folder


def test_finished_run_is_lengthened(simulated, tmp_path):
    first = load_or_train(simulated, CONFIG, tmp_path, progress=False, **SMALL)
    assert first.ended == (
        f"2 of 2 epochs (the most that `epochs` allows); epoch {kept_epoch(first)} is kept"
    )
    longer = load_or_train(simulated, replace(CONFIG, epochs=4), tmp_path, progress=False)
    assert longer.ended == (
        f"4 of 4 epochs (the most that `epochs` allows); epoch {kept_epoch(longer)} is kept"
    )
    assert load_run(tmp_path, progress=False).ended == longer.ended
    assert longer.history[:2] == first.history
    assert [entry["epoch"] for entry in longer.history] == [0, 1, 2, 3]
    rates = [entry["learning_rate"] for entry in longer.history]
    assert rates[2] > rates[1] > 0
    assert rates[3] < rates[2]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line.get("epoch") for line in lines] == [0, 1, 2, 3, None]
    with pytest.raises(ValueError, match=r"other training settings, epochs=4 \(now 3\)"):
        load_or_train(simulated, replace(CONFIG, epochs=3), tmp_path, progress=False)


def test_stopped_run_goes_on_with_more_patience(simulated, tmp_path):
    short = replace(CONFIG, epochs=12, patience=1, learning_rate=1e-2)
    first = load_or_train(simulated, short, tmp_path, progress=False, **SMALL)
    assert len(first.history) < 12
    assert first.ended == (
        f"{len(first.history)} of 12 epochs (no higher validation r in the last 1, so training "
        f"stopped); epoch {len(first.history) - 1} is kept"
    )
    assert load_run(tmp_path, progress=False).ended == first.ended
    longer = load_or_train(simulated, replace(short, patience=12), tmp_path, progress=False)
    assert load_run(tmp_path, progress=False).config.patience == 12
    assert longer.history[: len(first.history)] == first.history
    assert len(longer.history) == 12


def test_unknown_setting_is_one_sentence(simulated):
    with pytest.raises(
        ValueError,
        match=r"unknown setting 'color', expected one of the data .*video_processor.* or of",
    ):
        load_or_train(simulated, color=True)
    with pytest.raises(
        ValueError, match="context are settings of a folder: open the data set with them"
    ):
        load_or_train(
            MultimodalDataset(simulated, video_processor=VIDEO, progress=False), context=(1, 0)
        )


def test_checkpoint_of_an_older_version_is_refused(trained, tmp_path):
    checkpoint = torch.load(trained().folder / "best.pt", weights_only=True)
    del checkpoint["data"]
    torch.save(checkpoint, tmp_path / "best.pt")
    with pytest.raises(ValueError, match=r"best\.pt does not say what it was trained on"):
        load_model(tmp_path / "best.pt")


def test_bases_that_moved_with_the_data_or_lie_beside_the_run_are_found(simulated, tmp_path):
    """A folder that is renamed takes its cache along; a run that is sent away may take bases."""
    data = copy_of(simulated, tmp_path / "data")
    run = load_or_train(data, CONFIG, tmp_path / "run", progress=False, **SMALL)
    predicted = predict_fmri(run.model, run.data["test"])
    moved = data.rename(tmp_path / "moved")
    again = load_run(tmp_path / "run", moved, progress=False)
    assert np.array_equal(predict_fmri(again.model, again.data["test"]), predicted)
    with pytest.raises(
        FileNotFoundError, match=r"data, the data that .*run was trained on, is missing"
    ):
        load_run(tmp_path / "run")
    sent = copy_of(moved, tmp_path / "sent")
    with pytest.raises(FileNotFoundError, match="holds no bases"):
        load_run(tmp_path / "run", sent, progress=False)
    name = run.model.span.path.name
    shutil.copytree(again.model.span.path, tmp_path / "run" / name)
    beside = load_run(tmp_path / "run", sent, progress=False)
    assert np.array_equal(predict_fmri(beside.model, beside.data["test"]), predicted)


def test_data_are_where_the_environment_says(trained, simulated, tmp_path, monkeypatch):
    monkeypatch.setenv("GIBLET_DATA", str(copy_of(simulated, tmp_path / "moved")))
    assert load_run(trained().folder, progress=False).data["test"].folder.path == tmp_path / "moved"


def test_one_item_a_subject_and_tr(simulated, monkeypatch):
    """Trained without averaging, in a folder of its own, and found again as it was."""
    run = load_or_train(simulated, CONFIG, progress=False, average=False, **SMALL)
    train = run.data["train"]
    assert (train.average, len(train)) == (False, 2 * train.n_trs)
    assert all(run.data[name].average for name in ("val", "test", "all"))
    assert run.history[0]["step"] == -(-2 * train.n_trs // CONFIG.batch_size)
    usual = load_or_train(simulated, CONFIG, progress=False, direct=True, **SMALL)
    assert usual.folder != run.folder
    assert usual.history[0]["step"] == -(-train.n_trs // CONFIG.batch_size)
    again = load_run(run.folder, progress=False)
    assert (again.history, again.verdict) == (run.history, run.verdict)
    assert (again.data["train"].average, len(again.data["train"])) == (False, len(train))
    predicted = [predict_fmri(each.model, each.data["test"]) for each in (run, again)]
    assert np.array_equal(*predicted)
    monkeypatch.setattr(
        "giblet.training.trainer.Trainer._train_step", lambda *_: pytest.fail("trained again")
    )
    here = {"run_dir": run.folder, "progress": False}
    for same in (
        load_or_train(simulated, **here),
        load_or_train(run.data["test"], **here),
        load_or_train(run.data, run.config, **here, **run.settings),
    ):
        assert same.history == run.history
        assert not same.data["train"].average
    with pytest.raises(ValueError, match=r"other data settings, average=False \(now True\)"):
        load_or_train(simulated, **here, average=True)


def test_one_item_a_subject_and_tr_of_arrays(rng, tmp_path):
    arrays = {"text": rng.standard_normal((150, 9)), "fmri": rng.standard_normal((3, 150, 40))}
    dataset = MultimodalDataset.from_arrays(**arrays)
    run = load_or_train(dataset, CONFIG, tmp_path, progress=False, average=False, **TINY)
    assert len(run.data["train"]) == 3 * run.data["train"].n_trs
    again = load_run(tmp_path, dataset, progress=False)
    assert len(again.data["train"]) == len(run.data["train"])
    assert again.verdict == run.verdict


def test_colour_by_name(simulated, tmp_path):
    run = load_or_train(simulated, CONFIG, tmp_path, progress=False, colour=True, **SMALL)
    for each in (
        run,
        load_run(tmp_path, progress=False),
        load_or_train(simulated, run_dir=tmp_path, progress=False),
        load_or_train(simulated, run_dir=tmp_path, progress=False, colour=True),
    ):
        assert each.history == run.history
        film = each.data["test"].video_processor
        assert replace(film, tr=FILM.tr) == replace(FILM, colour=True)
        assert each.model.get_config()["video_dim"] == 3 * 18 * 32 * FILM.n_frames
    with pytest.raises(ValueError, match=r"other data settings, features=.*choose another folder"):
        load_or_train(simulated, run_dir=tmp_path, progress=False, colour=False)


def test_regions_by_name(trained, simulated, tmp_path):
    """Halves of the brain in place of the networks: settings of tables, not of the run."""
    mask_img = trained().data["all"].mask_img
    inside = np.asarray(mask_img.dataobj) > 0
    middle = mask_img.shape[1] // 2
    labels = np.where(np.arange(mask_img.shape[1])[:, None] < middle, 1, 2) * inside
    file = tmp_path / "halves.nii.gz"
    nib.save(nib.Nifti1Image(labels.astype(np.int16), mask_img.affine), file)
    halves = {"regions": file, "region_names": ("back", "front")}
    settings = {"run_dir": trained().folder, "progress": False}
    run = load_or_train(simulated, **settings, **halves)
    assert run.history == trained().history
    table = Prediction(run.model, run.data["test"]).network_table(n_permute=19)
    assert table.index.tolist() == ["back", "front"]
    n_voxels = [(labels == label).sum() for label in (1, 2)]
    assert table["n_voxels"].tolist() == n_voxels
    assert "Visual" in regions_of(load_or_train(simulated, **settings).data["test"]).names
