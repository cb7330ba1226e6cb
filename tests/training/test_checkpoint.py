import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from ranks import CONFIG, assert_same, new_trainer, state_of
from safetensors.torch import save_file

from giblet.training import TrainingError, load_checkpoint, load_model, save_checkpoint
from giblet.training.checkpoint import RunFolder


def test_killed_between_the_last_and_the_best_checkpoint(tmp_path):
    """`last.pt` holds all: the best weights are written from it again; half-written files go."""
    history = new_trainer().fit(tmp_path, progress=False)
    best = load_checkpoint(tmp_path / "best.pt")
    for path in (tmp_path / "best.pt", tmp_path / "best.safetensors"):
        path.unlink()
    (tmp_path / f".{'0123456789abcdef' * 2}-last.pt").write_bytes(b"half")
    assert new_trainer(seed=3).fit(tmp_path, progress=False) == history
    assert_same(load_checkpoint(tmp_path / "best.pt")["model_state_dict"], best["model_state_dict"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.pt",
        "best.safetensors",
        "last.pt",
        "log.jsonl",
    ]


HOLD = """
import sys, time
from pathlib import Path
from giblet.files import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(2)
    Path(sys.argv[2]).touch()
"""


def test_waits_for_a_process_that_trains_in_the_folder(tmp_path):
    run, ended = tmp_path / "run", tmp_path / "ended"
    command = [sys.executable, "-c", HOLD, str(run), str(ended)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        waited = []
        new_trainer().fit(run, lambda history: waited.append(ended.exists()), progress=False)
    assert waited
    assert all(waited)


def test_ranks_do_not_train_where_another_process_does(tmp_path, monkeypatch):
    monkeypatch.setattr("giblet.training.checkpoint.n_ranks", lambda: 2)

    def again(history):
        with pytest.raises(TrainingError, match="another process is training in"):
            new_trainer().fit(tmp_path, progress=False)

    new_trainer(replace(CONFIG, epochs=1)).fit(tmp_path, again, progress=False)


@pytest.mark.parametrize("name", ["best.pt", "best.safetensors"])
def test_checkpoint_makes_the_model_again(tmp_path, name):
    trainer = new_trainer()
    trainer.fit(tmp_path, progress=False)
    model = load_model(tmp_path / name)
    assert not model.training
    assert model.get_config() == trainer.model.get_config()
    assert_same(model.state_dict(), state_of(trainer))


def test_log_holds_the_history(tmp_path):
    history = new_trainer().fit(tmp_path, progress=False)
    assert [
        json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()
    ] == history
    assert [entry["step"] for entry in history] == [5, 10, 15, 20, 25, 30]


def test_other_settings_are_refused(tmp_path):
    new_trainer().fit(tmp_path, progress=False)
    other = replace(CONFIG, learning_rate=1e-4)
    with pytest.raises(
        ValueError, match=r"learning_rate=0.005 \(now 0.0001\): choose another folder"
    ):
        new_trainer(other).fit(tmp_path, progress=False)


def test_failed_write_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "last.pt", {"epoch": 1})

    def broken(contents, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path / "last.pt", {"epoch": 2})
    assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_missing_checkpoint_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt is missing: train first"):
        load_checkpoint(tmp_path / "nothing.pt")


def test_finished_run_is_loaded(tmp_path):
    first = new_trainer()
    history = first.fit(tmp_path, progress=False)
    again = new_trainer(seed=5)
    assert again.fit(tmp_path, progress=False) == history
    assert again.train.seen == []
    assert_same(state_of(first), state_of(again))


def test_memory_is_checked_before_what_was_saved_is_loaded(tmp_path, monkeypatch):
    """What a resumed run has on the device already is no reason to refuse it."""
    new_trainer(replace(CONFIG, epochs=2)).fit(tmp_path, progress=False)
    again = new_trainer()
    seen = []
    monkeypatch.setattr(
        again, "_check_memory", lambda progress: seen.append(len(again.optimizer.state))
    )
    history = again.fit(tmp_path, progress=False)
    assert (seen, len(history)) == ([0], CONFIG.epochs)


def without(name: str):
    def write(file, best):
        checkpoint = torch.load(best, weights_only=True)
        del checkpoint[name]
        torch.save(checkpoint, file)

    return write


def with_entry(name: str, value):
    def write(file, best):
        torch.save(torch.load(best, weights_only=True) | {name: value}, file)

    return write


def cut(name: str, n_bytes: int):
    return lambda file, best: file.write_bytes(best.with_name(name).read_bytes()[:n_bytes])


DAMAGED = {
    "cut.pt": cut("best.pt", 1000),
    "cut.safetensors": cut("best.safetensors", 1000),
    "cut early.safetensors": cut("best.safetensors", 4),
    "empty.pt": lambda file, best: file.write_bytes(b""),
    "empty.safetensors": lambda file, best: file.write_bytes(b""),
    "text.pt": lambda file, best: file.write_text("not a checkpoint"),
    "renamed.pt": cut("best.safetensors", -1),
    "renamed.safetensors": cut("best.pt", -1),
    "pickled.pt": lambda file, best: torch.save(torch.nn.Linear(2, 2), file),
    "tensor.pt": lambda file, best: torch.save(torch.zeros(3), file),
    "list.pt": lambda file, best: torch.save([1, 2], file),
    "other.pt": lambda file, best: torch.save({"weights": torch.zeros(3)}, file),
    "other.safetensors": lambda file, best: save_file({"weights": torch.zeros(3)}, file),
    "foreign.safetensors": lambda file, best: save_file(
        {"weights": torch.zeros(3)}, file, {"format": "pt"}
    ),
    "no data.pt": without("data"),
    "no span.pt": without("span"),
    "no config.pt": without("config"),
    "no training.pt": without("training"),
    "no weights.pt": without("model_state_dict"),
    "unknown config.pt": with_entry("config", {"n_layers": 3}),
    "config of another size.pt": with_entry("config", {"n_voxels": 7, "video_dim": 3}),
    "config is a list.pt": with_entry("config", [1]),
    "config is text.pt": with_entry("config", {"width": "wide"}),
    "unknown training.pt": with_entry("training", {"momentum": 0.9}),
    "bad training.pt": with_entry("training", {"epochs": -1}),
    "training is text.pt": with_entry("training", "adam"),
    "data are text.pt": with_entry("data", "here"),
    "data are empty.pt": with_entry("data", {}),
    "span is text.pt": with_entry("span", "span-1"),
    "span has no id.pt": with_entry("span", {"path": "/data"}),
    "weights are a list.pt": with_entry("model_state_dict", [torch.zeros(3)]),
    "weights are numbers.pt": with_entry("model_state_dict", {"encoder": 1}),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    new_trainer(replace(CONFIG, epochs=1)).fit(folder, progress=False)
    return folder


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_checkpoint_is_one_sentence(run, tmp_path, name):
    DAMAGED[name](tmp_path / name, run / "best.pt")
    with pytest.raises(
        ValueError,
        match=rf"{name} (is damaged or no checkpoint|does not say what it was trained on).*: "
        r"(take another of its run, or train again|train again)\.$",
    ) as refused:
        load_model(tmp_path / name)
    assert "\n" not in str(refused.value)


DAMAGED_LAST = {
    "cut": cut("last.pt", 1000),
    "empty": DAMAGED["empty.pt"],
    "pickled": DAMAGED["pickled.pt"],
    "no history": without("history"),
    "no optimizer": without("optimizer_state_dict"),
    "no step": without("step"),
    "history is text": with_entry("history", "long"),
    "history without losses": with_entry("history", [{"epoch": 0}]),
    "optimizer of another model": with_entry(
        "optimizer_state_dict", {"state": {}, "param_groups": [{"params": [0]}]}
    ),
    "weights of another model": with_entry("model_state_dict", {"weights": torch.zeros(3)}),
}


@pytest.mark.parametrize("name", DAMAGED_LAST)
def test_run_that_cannot_go_on_says_what_to_delete(run, tmp_path, name):
    folder = shutil.copytree(run, tmp_path / "run")
    DAMAGED_LAST[name](folder / "last.pt", run / "last.pt")
    with pytest.raises(
        ValueError,
        match=r"last\.pt is damaged or no checkpoint .*: delete it to train from the start; best",
    ):
        new_trainer(CONFIG).fit(folder, progress=False)
    (folder / "last.pt").unlink()
    history = new_trainer(replace(CONFIG, epochs=1)).fit(folder, progress=False)
    assert history == RunFolder(run).read_history()


def test_damaged_best_checkpoint_is_written_again(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    os.truncate(folder / "best.pt", 1000)
    new_trainer(replace(CONFIG, epochs=1)).fit(folder, progress=False)
    weights = [load_checkpoint(path / "best.pt")["model_state_dict"] for path in (run, folder)]
    assert_same(*weights)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]\n" + text,
        lambda text: text + "half a li",
        lambda text: "\x00\x01",
        lambda text: '{"epoch": 0}\n',
        lambda text: '{"epoch": 0, "train": {}, "val": {"r": 1}}\n',
    ],
)
def test_damaged_log_is_one_sentence(run, tmp_path, damage):
    text = (run / "log.jsonl").read_text()
    (tmp_path / "log.jsonl").write_text(damage(text))
    for read in (RunFolder(tmp_path).read_history, lambda: RunFolder(tmp_path).read_verdict(0)):
        with pytest.raises(
            ValueError, match=r"log\.jsonl is damaged \(.*\): copy it again, or delete"
        ):
            read()
