"""Training, reconstruction and lesions on a GPU, compared with the CPU of the same machine.

    python benchmarks/gpu.py [--direct-cpu]

Features are noise in memory, so that no file is read. Prints seconds per update of 32 TRs and per
pass over the training TRs, validation included, on the GPU in bf16 and in float32 and on the CPU in
float32; ratios are CPU / GPU. The first pass of a run is not timed. 'planned' and 'used' are bytes
beyond the weights, in GB: of `plan_memory`, and the peak that torch allocated. Then TRs decoded per
second by the full-size model in the span, and lesions of 300 voxels scored per second. Without a
GPU it says so and does nothing.

An update of the direct model takes about 10 s on a CPU and 47 GB of memory, so `--direct-cpu` asks
for it.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from giblet.analysis.lesions import Brain, Lesion
from giblet.analysis.reconstruction import decode_batches
from giblet.data import MultimodalDataset, fit_span
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.recipe import FULL_SIZE, SMALL
from giblet.training import Trainer, TrainingConfig
from giblet.training.memory import plan_memory

GPU = "cuda"
CPU = "cpu"
BATCH = 32
N_AUDIO = 2048
N_TEXT = 1024
FRACTIONS = (0.78, 0.2, 0.02)
N_PASSES = 3  # timed, after one that is not
N_LESIONS = 32
LESION_VOXELS = 300


@dataclass(frozen=True)
class Case:
    """A model and the size of its data; `direct` holds every weight of pixels and voxels."""

    name: str
    n_trs: int
    n_pixels: int
    n_voxels: int
    settings: dict
    direct: bool = False


CASES = (
    Case("small recipe, span", 480, 32_400, 3_666, SMALL.model),
    Case("full size, span", 978, 259_200, 85_810, FULL_SIZE.model),
    Case("full size, direct", 157, 259_200, 85_810, FULL_SIZE.model, direct=True),
)


@dataclass(frozen=True)
class Timing:
    """Seconds per update and per pass; bytes planned and used beyond the weights."""

    update: float
    whole_pass: float
    planned: int
    used: int


class Enough(Exception):
    """Ends a run before its checkpoint is written: of the direct model it has 31 GB."""


def noise(case: Case) -> dict[str, MultimodalDataset]:
    """Training and validation TRs of one run of one subject."""
    rng = np.random.default_rng(0)
    widths = {"audio": N_AUDIO, "text": N_TEXT, "fmri": case.n_voxels}
    arrays = {name: rng.standard_normal((case.n_trs, n), np.float32) for name, n in widths.items()}
    arrays["video"] = rng.integers(0, 256, (case.n_trs, case.n_pixels), dtype=np.uint8)
    arrays |= {"average": True, "fractions": FRACTIONS}
    splits = ("train", "val")
    return {split: MultimodalDataset.from_arrays(**arrays, split=split) for split in splits}


def build(case: Case, train: MultimodalDataset, folder: Path, device: str) -> MultimodalAutoencoder:
    """The model of a case; the direct one is made on its device."""
    settings = train.model_dims | case.settings
    torch.manual_seed(0)
    if not case.direct:
        return SpanAutoencoder(fit_span(train, folder, progress=False), **settings)
    with torch.device(device):
        return MultimodalAutoencoder(**settings)


def clock(call: Callable[[], object]) -> float:
    """Seconds of a call that waits for its device."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_training(case: Case, data: dict, folder: Path, device: str, precision: str) -> Timing:
    """Median pass; an update is a pass without its validation, by the number of its batches."""
    release_memory()
    n_epochs = N_PASSES + 2  # the last one, which writes the checkpoint, is not reached
    limits = {"epochs": n_epochs, "patience": n_epochs, "checkpoint_every": n_epochs}
    place = {"device": device, "precision": precision}
    config = TrainingConfig(batch_size=BATCH, learning_rate=1e-4, **limits, **place)
    model = build(case, data["train"], folder, device)
    trainer = Trainer(model, data["train"], data["val"], config)
    plan = plan_memory(trainer.model, BATCH, trainer.device)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    whole_pass = time_passes(trainer)
    validation = np.median([clock(lambda: trainer.evaluate(trainer.val)) for _ in range(N_PASSES)])
    update = (whole_pass - float(validation)) / trainer.n_batches
    return Timing(update, whole_pass, plan.needed, torch.cuda.max_memory_allocated() - before)


def time_passes(trainer: Trainer) -> float:
    """Median seconds of a pass after the first."""
    ends = []

    def on_epoch(history: list[dict]) -> None:
        ends.append(time.perf_counter())
        if len(history) > N_PASSES:
            raise Enough

    with tempfile.TemporaryDirectory() as run, suppress(Enough):
        trainer.fit(run, on_epoch, progress=False)
    return float(np.median(np.diff(ends)))


def release_memory() -> None:
    """Give the GPU back what the run before held: the plan counts what is free beside torch."""
    gc.collect()
    torch.cuda.empty_cache()


def fits(case: Case, train: MultimodalDataset) -> bool:
    """Whether the GPU has room for the direct model and its training; says so if not."""
    with torch.device("meta"):
        model = MultimodalAutoencoder(**(train.model_dims | case.settings))
    release_memory()
    plan = plan_memory(model, BATCH, torch.device(GPU))
    enough = sum(plan.parts.values()) <= plan.free
    if not enough:
        print(f"{case.name}: left out, as this GPU is too small: {plan}")
    return enough


def time_case(case: Case, folder: Path, on_cpu: bool) -> None:
    """Print a line for each precision on the GPU, beside float32 on the CPU."""
    data = noise(case)
    if case.direct and not fits(case, data["train"]):
        return
    slow = time_training(case, data, folder, CPU, "float32") if on_cpu else None
    for precision in ("bf16", "float32"):
        fast = time_training(case, data, folder, GPU, precision)
        print(row(f"{case.name}, {data['train'].n_trs} TRs", precision, fast, slow), flush=True)


def row(name: str, precision: str, fast: Timing, slow: Timing | None) -> str:
    """A line of the table."""
    parts = [f"{name:27}", f"{precision:8}"]
    for unit in ("update", "whole_pass"):
        seconds = getattr(fast, unit)
        beside = [f"{'-':>9}", f"{'-':>8}"]
        if slow is not None:
            cpu = getattr(slow, unit)
            beside = [f"{cpu:9.3f}", f"{cpu / seconds:7.1f}x"]
        parts += [f"{seconds:9.4f}", *beside]
    parts += [f"{fast.planned / 1e9:9.2f}", f"{fast.used / 1e9:9.2f}"]
    return " ".join(parts)


def head() -> str:
    """Names of the columns of `row`."""
    times = ["update s", "CPU", "ratio", "pass s", "CPU", "ratio", "planned", "used"]
    widths = [9, 9, 8, 9, 9, 8, 9, 9]
    cells = [f"{time:>{width}}" for time, width in zip(times, widths, strict=True)]
    return " ".join([f"{'':27}", f"{'':8}", *cells])


def time_analysis(case: Case, folder: Path) -> None:
    """Print TRs decoded and lesions scored per second, in float32 on both devices."""
    release_memory()
    data = noise(case)
    val = data["val"]
    rng = np.random.default_rng(0)
    masks = np.zeros((N_LESIONS, case.n_voxels), bool)
    for mask in masks:
        mask[rng.choice(case.n_voxels, LESION_VOXELS, replace=False)] = True
    rates = {}
    for device in (GPU, CPU):
        model = build(case, data["train"], folder, device).to(device).eval()
        brain = Brain(model, val, val.fmri())
        lesions = [Lesion(brain, mask) for mask in masks]
        calls = {
            "TRs decoded": (val.n_trs, lambda m=model: list(decode_batches(m, val.fmri()))),
            f"lesions of {val.n_trs} TRs": (N_LESIONS, lambda b=brain, x=lesions: b.of_lesions(x)),
        }
        for name, (n, call) in calls.items():
            call()
            rates[name, device] = n / clock(call)
    for name in calls:
        gpu = rates[name, GPU]
        cpu = rates[name, CPU]
        print(f"{name} per second: {gpu:.1f} on the GPU, {cpu:.1f} on the CPU, {gpu / cpu:.1f}x")


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--direct-cpu", action="store_true", help="also the direct model's CPU")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"skipped: torch {torch.__version__} finds no GPU that it can use")
        return
    name = torch.cuda.get_device_name()
    print(f"{name}; CPU of {torch.get_num_threads()} threads; torch {torch.__version__}")
    print(head())
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            time_case(case, Path(folder), on_cpu=given.direct_cpu or not case.direct)
        if not given.direct_cpu:
            print("the direct model was not timed on the CPU: --direct-cpu")
        time_analysis(CASES[1], Path(folder))


if __name__ == "__main__":
    main()
