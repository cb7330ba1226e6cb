"""Training of the small recipe on a GPU: against the CPU, by a rank of DDP and FSDP2, resumed.

Started by torchrun, this file is the rank.
"""

import argparse
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from device import (
    BF16,
    CONFIG,
    DEVICE,
    LOSSES,
    NEEDS_GPU,
    TOLERANCE,
    assert_close,
    largest_difference,
    small_trainer,
)
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from giblet.analysis.prediction import predict_fmri
from giblet.recipe import open_data
from giblet.training import Trainer, load_checkpoint, load_model
from giblet.training.device import resolve_device
from giblet.training.distributed import process_group

pytestmark = NEEDS_GPU
PRECISIONS = ("float32", "bf16")
FIRST_EPOCH = 2e-3
# The same run again on the same device: equal but for what the device itself does not repeat.
REPEATED = 1e-6


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> dict[str, Trainer]:
    """The small recipe without dropout: on the device by precision, and 'cpu' in float32."""
    configs = {precision: replace(CONFIG, precision=precision) for precision in PRECISIONS}
    configs["cpu"] = replace(CONFIG, device="cpu")
    trainers = {}
    for name, config in configs.items():
        trainers[name] = small_trainer(data, config, dropout=False)
        trainers[name].fit(tmp_path_factory.mktemp(name), progress=False)
    return trainers


def test_small_recipe_trains_in_bf16_over_float32_weights(trained):
    trainer = trained["bf16"]
    assert trainer.dtype == torch.bfloat16
    assert trainer.device.type == DEVICE
    assert {value.device.type for value in trainer.model.state_dict().values()} == {DEVICE}
    assert {parameter.dtype for parameter in trainer.core.parameters()} == {torch.float32}
    moments = [state["exp_avg"] for state in trainer.optimizer.state.values()]
    assert {moment.dtype for moment in moments} == {torch.float32}
    for name in LOSSES:
        losses = [entry["train"][name] for entry in trainer.history]
        assert losses[-1] < (1 - 2 * TOLERANCE) * losses[0]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_losses_are_those_of_the_cpu(trained, precision):
    difference = largest_difference(trained[precision].history, trained["cpu"].history)
    print(f"{precision}: largest relative difference {difference:.1e}")
    assert difference < TOLERANCE


def test_checkpoint_of_the_device_predicts_the_same_on_the_cpu(models, data):
    on_device, on_cpu = models
    assert next(on_device.parameters()).device.type == DEVICE
    assert {parameter.device.type for parameter in on_cpu.parameters()} == {"cpu"}
    assert_close(predict_fmri(on_device, data["test"]), predict_fmri(on_cpu, data["test"]))


def run_in_bf16(data: dict, folder: Path) -> list[dict]:
    """Losses of the small recipe as a GPU trains it, dropout included."""
    return small_trainer(data, BF16).fit(folder, progress=False)


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory) -> list[dict]:
    """Losses in one process on the device."""
    return run_in_bf16(data, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_one_rank_gives_the_losses_of_plain_training(simulated, plain, tmp_path, kind):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    command = [sys.executable, *torchrun, __file__, str(simulated), str(tmp_path), kind]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    history = load_checkpoint(tmp_path / "last.pt")["history"]
    assert largest_difference(history[:1], plain[:1]) < FIRST_EPOCH
    assert largest_difference(history, plain) < TOLERANCE
    assert load_model(tmp_path / "best.pt").get_config()


def test_resumed_run_gives_the_losses_of_the_uninterrupted_one(data, plain, tmp_path):
    """Stopped within the third epoch: the signal is answered at the step after it."""

    def ask_to_stop(history: list[dict]) -> None:
        if len(history) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(SystemExit):
        small_trainer(data, BF16).fit(tmp_path / "run", ask_to_stop, progress=False)
    stopped = load_checkpoint(tmp_path / "run" / "last.pt")
    assert len(stopped["history"]) == 2
    assert stopped["step"] == stopped["history"][-1]["step"] + 1
    resumed = small_trainer(data, BF16)
    history = resumed.fit(tmp_path / "run", progress=False)
    assert {value.device.type for value in resumed.model.state_dict().values()} == {DEVICE}
    repeated = largest_difference(run_in_bf16(data, tmp_path / "repeated"), plain)
    assert repeated < TOLERANCE
    assert largest_difference(history, plain) <= max(REPEATED, 4 * repeated)


def main() -> None:
    """Train the small recipe as one rank: `torchrun test_gpu.py DATA RUN KIND`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("kind", choices=("ddp", "fsdp"))
    given = parser.parse_args()
    config = replace(BF16, shard=given.kind == "fsdp")
    # one rank alone trains without DDP, so let the model be wrapped as for two
    two_ranks = patch("giblet.training.distributed.n_ranks", return_value=2)
    with process_group(resolve_device(config)):
        with two_ranks if given.kind == "ddp" else nullcontext():
            trainer = small_trainer(open_data(given.data, progress=False), config)
        wrapped = {"ddp": DistributedDataParallel, "fsdp": FSDPModule}[given.kind]
        assert isinstance(trainer._loss, wrapped)
        trainer.fit(given.run, progress=False)


if __name__ == "__main__":
    main()
