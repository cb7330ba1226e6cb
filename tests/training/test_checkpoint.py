import json
from dataclasses import replace

import pytest
import torch
from ranks import CONFIG, assert_same, new_trainer, state_of
from safetensors.torch import save_file

from giblet.training import TrainingError, load_checkpoint, load_model, save_checkpoint


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


def test_two_processes_do_not_train_in_one_folder(tmp_path):
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

    def broken(contents, path):
        path.write_bytes(b"half")
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


DAMAGED = {
    "cut.pt": lambda file, best: file.write_bytes(best.with_suffix(".pt").read_bytes()[:1000]),
    "cut.safetensors": lambda file, best: file.write_bytes(
        best.with_suffix(".safetensors").read_bytes()[:1000]
    ),
    "empty.pt": lambda file, best: file.touch(),
    "pickled.pt": lambda file, best: torch.save(torch.nn.Linear(2, 2), file),
    "other.pt": lambda file, best: torch.save({"weights": torch.zeros(3)}, file),
    "other.safetensors": lambda file, best: save_file({"weights": torch.zeros(3)}, file),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_checkpoint_is_one_sentence(tmp_path, name):
    new_trainer(replace(CONFIG, epochs=1)).fit(tmp_path, progress=False)
    DAMAGED[name](tmp_path / name, tmp_path / "best.pt")
    with pytest.raises(
        ValueError,
        match=rf"{name} (is damaged or no checkpoint|does not say what it was trained on)",
    ):
        load_model(tmp_path / name)
