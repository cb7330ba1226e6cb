"""How much do two trainings at once slow each other, with and without giblet's policy for threads?

    python benchmarks/threads.py

A thread that waits for work sleeps under giblet's policy (OMP_WAIT_POLICY=PASSIVE). Under libgomp's
default it spins, on a core that the other process needs. Two processes that share the cores and do
not disturb each other take up to twice as long as one. Seconds are the least of several repeats.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

POLICIES = {"giblet's policy": "giblet", "libgomp's default": "torch"}  # by what is imported first
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")  # the user's, which would win


def work(first: str, data: str, epochs: int) -> None:
    """Train once when a line comes in, and print how many seconds it took."""
    importlib.import_module(first)  # nothing above imports either: OpenMP reads the policy once
    from giblet.runs import load_or_train
    from giblet.training import TrainingConfig

    config = TrainingConfig(epochs=epochs, patience=epochs, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        one_epoch = TrainingConfig(epochs=1, device="cpu")
        load_or_train(data, one_epoch, f"{folder}/warm", progress=False)
        print("ready", flush=True)
        input()
        start = time.perf_counter()
        load_or_train(data, config, f"{folder}/run", progress=False)
        print(f"seconds {time.perf_counter() - start}", flush=True)


def seconds(n_processes: int, first: str, data: str, epochs: int) -> float:
    """Of the slowest of some trainings that start together."""
    command = [sys.executable, __file__, "--epochs", str(epochs), "--work", first, data]
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen(command, **pipes) for _ in range(n_processes)]
    for process in processes:
        read(process, "ready")
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    taken = [read(process, "seconds") for process in processes]
    for process in processes:
        process.communicate()
    return max(float(line) for line in taken)


def read(process: subprocess.Popen, word: str) -> str:
    """What follows `word` on the line that begins with it."""
    for line in process.stdout:
        if line.startswith(word):
            return line.removeprefix(word).strip()
    raise RuntimeError(f"a training ended with exit code {process.wait()}")


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work, arguments.epochs)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(simulate(folder), arguments.epochs, arguments.repeats)


def simulate(folder: str) -> str:
    from giblet.data import simulate_dataset

    sizes = {"n_subjects": 2, "run_trs": (64, 62), "resolution_mm": 12}
    return str(simulate_dataset(Path(folder) / "data", **sizes, progress=False))


def compare(data: str, epochs: int, repeats: int) -> None:
    """Print the seconds and their ratio, a line a policy."""
    taken = defaultdict(list)
    for _ in range(repeats):  # in turn, so that what else the machine does meets both
        for name, first in POLICIES.items():
            for n_processes in (1, 2):
                taken[name, n_processes].append(seconds(n_processes, first, data, epochs))
    for name in POLICIES:
        alone, both = (min(taken[name, n_processes]) for n_processes in (1, 2))
        told = f"alone {alone:6.2f} s  two at once {both:6.2f} s  ratio {both / alone:5.2f}"
        print(f"{name:18} {told}")


if __name__ == "__main__":
    main()
