"""Several ranks, each a process of its own, as `torchrun` starts them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from giblet.training import load_checkpoint, load_model
from giblet.training.distributed import check_joined
from giblet.training.launcher import SIGNALS

WORKER = [str(Path(__file__).with_name("ranks.py"))]
TORCHRUN = [
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node=2",
    f"--signals-to-handle={SIGNALS}",
]


def start(folder: Path, *options: str, n_ranks: int = 2) -> subprocess.Popen:
    command = [sys.executable, *(TORCHRUN if n_ranks == 2 else []), *WORKER, str(folder), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def run(folder: Path, *options: str, n_ranks: int = 2) -> dict:
    """Train to the end; the last checkpoint."""
    process = start(folder, *options, n_ranks=n_ranks)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    return load_checkpoint(folder / "last.pt")


def largest_difference(a: dict, b: dict) -> float:
    """Of weights, running statistics and optimiser state."""
    assert a["model_state_dict"].keys() == b["model_state_dict"].keys()
    pairs = [(value, b["model_state_dict"][name]) for name, value in a["model_state_dict"].items()]
    moments = (checkpoint["optimizer_state_dict"]["state"] for checkpoint in (a, b))
    pairs += [
        (x[name], y[name])
        for x, y in zip(*(m.values() for m in moments), strict=True)
        for name in x
    ]
    return max(
        (x - y).abs().max().item() for x, y in pairs if x.is_floating_point()
    )  # counts of batches aside


def assert_identical(a: dict, b: dict) -> None:
    assert largest_difference(a, b) == 0
    assert a["history"] == b["history"]
    assert a["step"] == b["step"]
    assert all(torch.equal(a["best"][name], b["best"][name]) for name in a["best"])


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def family(process: subprocess.Popen) -> list[psutil.Process]:
    return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> dict:
    """50 steps of AdamW in float64 by one process, in two micro-batches."""
    return run(tmp_path_factory.mktemp("one"), "--dtype=float64", "--epochs=10", n_ranks=1)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run(folder, "--dtype=float64", "--epochs=10")
    return folder


def test_two_ranks_are_one_process_with_two_micro_batches(one_process, two_ranks, tmp_path):
    """50 steps of AdamW in float64 on uneven batches, and held-out losses; float32 is printed."""
    two = load_checkpoint(two_ranks / "last.pt")
    assert two["step"] == 50
    assert largest_difference(one_process, two) < 1e-9
    for entries in zip(one_process["history"], two["history"], strict=True):
        for split in ("train", "val"):
            assert entries[0][split] == pytest.approx(entries[1][split], abs=1e-9)
    one, two = (run(tmp_path / str(n), "--epochs=10", n_ranks=n) for n in (1, 2))
    print(f"float32: largest difference after 50 steps {largest_difference(one, two):.1e}")


def test_one_micro_batch_is_another_training(one_process, tmp_path):
    """So the agreement above is no accident: BatchNorm and dropout see another batch."""
    other = run(tmp_path, "--dtype=float64", "--epochs=10", "--micro_batches=1", n_ranks=1)
    assert largest_difference(one_process, other) > 1e-4


def test_sharded_ranks_are_the_same(tmp_path):
    """FSDP2 against DDP, 20 steps in float64, from weights that only the first rank had."""
    options = ("--dtype=float64", "--epochs=4")
    ddp = run(tmp_path / "ddp", *options)
    sharded = run(tmp_path / "fsdp", *options, "--shard")
    assert sharded["step"] == 20
    assert largest_difference(ddp, sharded) < 1e-9
    model = load_model(tmp_path / "fsdp/best.pt").state_dict()
    assert all(
        torch.equal(value.to(model[name].dtype), model[name])
        for name, value in sharded["best"].items()
    )


def stop(folder: Path, process: subprocess.Popen, target: psutil.Process, name: str) -> None:
    """Signal one process of a run.

    It is saved at the next step, every rank exits with 0, and nobody is left.
    """
    processes = family(process)
    before = load_checkpoint(folder / "last.pt")["step"]
    target.send_signal(getattr(signal, name))
    said = process.communicate(timeout=60)[1]
    assert not [p for p in processes if p.is_running()]
    step = load_checkpoint(folder / "last.pt")["step"]
    assert f"asked to stop: saved step {step}" in said
    assert before <= step
    assert [(folder / f"exit-{rank}").read_text() for rank in (0, 1)] == ["0", "0"]


@pytest.mark.parametrize(("name", "first"), [("SIGTERM", "ddp"), ("SIGUSR1", "fsdp")])
def test_asked_to_stop_by_torchrun_and_gone_on_with_the_other_way(two_ranks, tmp_path, name, first):
    """A checkpoint of DDP goes on in FSDP2 and the reverse, to the weights of an unstopped run."""
    options = ("--dtype=float64", "--epochs=10")
    process = start(tmp_path, *options, *["--shard"] * (first == "fsdp"))
    wait_for(tmp_path / "last.pt", process)
    stop(tmp_path, process, process, name)
    assert load_checkpoint(tmp_path / "last.pt")["step"] < 50
    ended = run(tmp_path, *options, *["--shard"] * (first == "ddp"))
    assert ended["step"] == 50
    assert largest_difference(load_checkpoint(two_ranks / "last.pt"), ended) < 1e-9


def test_one_rank_asked_to_stop_stops_all(tmp_path, uninterrupted):
    options, whole = uninterrupted
    process = start(tmp_path, *options)
    wait_for(tmp_path / "last.pt", process)
    stop(tmp_path, process, family(process)[-1], "SIGUSR1")
    assert process.returncode == 0
    assert_identical(run(tmp_path, *options), whole)


def test_ranks_end_when_torchrun_is_killed(tmp_path):
    process = start(tmp_path, "--epochs=9999", "--checkpoint_every=1")
    wait_for(tmp_path / "last.pt", process)
    processes = family(process)
    process.kill()
    assert not psutil.wait_procs(processes[1:], timeout=30)[1]
    process.communicate()
    assert (tmp_path / "exit-0").read_text() == "0"


def test_not_a_number_on_one_rank_stops_all(tmp_path):
    process = start(tmp_path, "--nan")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert said.count("the loss at step 0 is nan: there is no checkpoint yet") >= 2


def killed_run(
    folder: Path, options: tuple[str, ...], rng: np.random.Generator, while_saving: bool
) -> None:
    """Start, and kill everything at a random moment of training, or in the middle of a write."""
    process = start(folder, *options)
    wait_for(folder / "log.jsonl", process)
    time.sleep(rng.uniform(0, 2))
    while while_saving and process.poll() is None and not any(folder.glob(".*-last.pt")):
        pass
    for member in family(process):
        member.kill()
    process.communicate()


@pytest.mark.parametrize(
    "draw", [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 20))]
)
def test_killed_at_a_random_moment(tmp_path, uninterrupted, draw):
    options, whole = uninterrupted
    rng = np.random.default_rng(draw)
    killed_run(tmp_path, options, rng, while_saving=draw % 2 == 0)
    for name in ("last.pt", "best.pt"):
        if (tmp_path / name).exists():
            load_checkpoint(tmp_path / name)
    assert_identical(run(tmp_path, *options), whole)
    assert not any(tmp_path.glob(".*-*"))
    best = load_model(tmp_path / "best.pt").state_dict()
    assert all(torch.equal(value, best[name]) for name, value in whole["best"].items())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[tuple[str, ...], dict]:
    options = ("--epochs=25", "--checkpoint_every=1", "--width=0.125")
    return options, run(tmp_path_factory.mktemp("whole"), *options)


def test_ranks_that_have_not_joined_are_refused(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_torchelastic_launched", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 ranks that have not joined"):
        check_joined()
