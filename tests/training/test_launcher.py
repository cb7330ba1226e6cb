import contextlib
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
import torch

from giblet import cli
from giblet.models import MultimodalAutoencoder
from giblet.recipe import FULL_SIZE
from giblet.runs import load_or_train
from giblet.training import TrainingConfig, TrainingError, launch, load_checkpoint, load_model
from giblet.training.launcher import _command

LAUNCH = """
import signal, sys
from giblet.training import TrainingConfig, launch
# as a kernel has it, also where the shell ignores it
signal.signal(signal.SIGINT, signal.default_int_handler)
config = TrainingConfig(epochs=99_999, patience=99_999, checkpoint_every=1)
launch(sys.argv[1], sys.argv[2], config, n_ranks=2)
"""


def test_command_gives_the_config_back(tmp_path, monkeypatch):
    seen = {}

    def load_or_train(data, config, run_dir, **settings):
        seen.update(settings, data=data, config=config, run_dir=run_dir)
        raise SystemExit

    monkeypatch.setattr("giblet.runs.load_or_train", load_or_train)
    config = replace(
        TrainingConfig(), epochs=3, learning_rate=1 / 3, micro_batches=4, shard=True, device="cpu"
    )
    command = _command(tmp_path, tmp_path / "out", config, 4, full_size=True, direct=True)
    monkeypatch.setattr(sys, "argv", command[command.index("giblet.cli") :])
    with pytest.raises(SystemExit):
        cli.main()
    assert seen["config"] == config
    assert (seen["data"], seen["run_dir"]) == (tmp_path, tmp_path / "out/run")
    assert seen["recipe"] is FULL_SIZE
    assert seen["direct"] is True


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_nobody_is_left(simulated, tmp_path, name):
    """After an interrupt, as of a cell; after the kernel has died."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, simulated, tmp_path], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run/last.pt").exists():
        assert launcher.poll() is None, launcher.stderr.read()
        time.sleep(0.05)
    started = psutil.Process(launcher.pid).children(recursive=True)
    assert len(started) >= 3  # torchrun and two ranks
    launcher.send_signal(getattr(signal, name))
    try:
        said = launcher.communicate(timeout=90)[1]
        assert ("KeyboardInterrupt" in said) == (name == "SIGINT")
        assert not psutil.wait_procs(started, timeout=60 if name == "SIGKILL" else 0)[1]
    finally:
        for process in (launcher, *started):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    assert load_checkpoint(tmp_path / "run/last.pt")["step"] > 0


def test_rank_that_fails_is_an_error(tmp_path, capsys):
    with pytest.raises(
        TrainingError, match="training on 2 ranks ended with exit code 1, see above"
    ):
        launch(tmp_path / "nowhere", tmp_path, TrainingConfig(epochs=1), n_ranks=2)
    assert "nowhere" in capsys.readouterr().out


def test_sharded_run_of_every_weight(simulated, tmp_path):
    """Trained in shares by two ranks, reported by the first, and loaded whole by one process."""
    config = TrainingConfig(epochs=1, batch_size=16)
    checkpoint = launch(simulated, tmp_path, replace(config, shard=True), n_ranks=2, direct=True)
    settings = {"config": replace(config, micro_batches=2), "run_dir": tmp_path / "run"}
    run = load_or_train(simulated, **settings, direct=True, progress=False)
    assert type(load_model(checkpoint)) is MultimodalAutoencoder
    model = load_model(run.folder)
    for a, b in zip(run.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (tmp_path / "prediction.csv").read_text().count("\n") > 10
