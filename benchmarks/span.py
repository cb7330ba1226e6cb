"""The full-size model, span training against the direct path, at the seed's sizes and from disk.

    python benchmarks/span.py FOLDER [--passes 100] [--skip-direct]

Writes features of noise for 17 subjects and 920 TRs to FOLDER once (6 GB), then measures each case
in a process of its own: seconds per update of 32 TRs and per pass over all training data, and the
peak of resident memory. A direct pass takes every subject's response as an item, 391 updates; a
span pass sees the same data in 23, because subjects collapse into their mean, so a pass compares
equal data and not equal numbers of updates. `--passes` trains that many passes with validation,
and merges the network with ridge regression.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from giblet.alignment.splits import Splitting
from giblet.basis import fit_basis
from giblet.data import CoordinateDataset, MultimodalDataset, fit_span
from giblet.data.coordinates import BLOCK_COLUMNS
from giblet.data.features import Features
from giblet.data.fmri import npy_writer
from giblet.merging import merge
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.training import Trainer, TrainingConfig
from giblet.training.step import clip_gradients

N_SUBJECTS = 17
N_TRS = 920
N_PIXELS = 259_200
N_AUDIO = 2048
N_TEXT = 1024
N_VOXELS = 85_810
BATCH = 32
SPAN_CASES = [
    {"optimizer": optimizer, "measured_weight": measured, "precision": precision}
    for optimizer, measured, precision in (
        ("SGD", 0, "float32"),
        ("AdamW", 0, "float32"),
        ("AdamW", 1, "float32"),
        ("AdamW", 0, "bf16"),
        ("AdamW", 1, "bf16"),
    )
]


class Prepared(MultimodalDataset):
    """A data set of features that are on disk already."""

    def __init__(self, cache: Path, split: str, average: bool):
        self.folder = None
        self.truth = {}
        self.planted = {}
        self.region_names = None
        self.region_labels = None
        self.mask_img = None
        self.cache = cache
        self.tr = 1.5
        self.simulated = True
        names = [f"sub-{n + 1:02d}" for n in range(N_SUBJECTS)]
        self._splitting = Splitting((0, 0))
        self._choose(Features.load(cache), names, "all")
        self._take(split, average)

    @property
    def provenance(self) -> dict:
        """Nothing to recognise noise by; 6 GB are not read for a fingerprint."""
        return {"tr": self.tr, "hash": "noise"}


def write_features(folder: Path, n_trs: int = N_TRS, n_subjects: int = N_SUBJECTS) -> None:
    """Noise of the seed's sizes: 736 training TRs, no gap, the rest for validation."""
    if (folder / "run.npy").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    np.save(folder / "video.npy", rng.integers(0, 256, (n_trs, N_PIXELS), dtype=np.uint8))
    for name, width in (("audio", N_AUDIO), ("text", N_TEXT)):
        np.save(folder / f"{name}.npy", rng.standard_normal((n_trs, width), dtype=np.float32))
    with npy_writer(folder / "fmri.npy", (n_subjects, n_trs, N_VOXELS)) as write:
        for _ in range(n_subjects):
            write(rng.standard_normal((n_trs, N_VOXELS), dtype=np.float32))
    np.save(folder / "valid.npy", np.ones((n_subjects, n_trs), bool))
    n_train = round(0.8 * n_trs)
    np.save(
        folder / "split.npy", np.repeat(["train", "val"], [n_train, n_trs - n_train]).astype("<U7")
    )
    np.save(folder / "run.npy", np.zeros(n_trs, int))


def span_model(folder: Path, **settings) -> SpanAutoencoder:
    train = Prepared(folder, "train", True)
    return SpanAutoencoder(fit_span(train, progress=False), **train.model_dims, **settings)


def updates(
    model: nn.Module, data, optimizer: str, precision: str, n_updates: int
) -> dict[str, float]:
    """Median seconds of each part of an update."""
    kinds = {
        "SGD": lambda p: torch.optim.SGD(p, lr=1e-4),
        "AdamW": lambda p: torch.optim.AdamW(p, 1e-4, fused=True),
    }
    step = kinds[optimizer](model.parameters())
    parts = []
    for rows in torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).split(BATCH)[
        :n_updates
    ]:
        clock = [time.perf_counter()]
        batch = data[rows.tolist()]
        clock.append(time.perf_counter())
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model.batch_loss(batch)[0]
        clock.append(time.perf_counter())
        step.zero_grad()
        loss.backward()
        clock.append(time.perf_counter())
        clip_gradients(model, 1.0)
        clock.append(time.perf_counter())
        step.step()
        clock.append(time.perf_counter())
        parts.append(np.diff(clock))
    return dict(
        zip(
            ("load", "forward", "backward", "clip", "optimizer"),
            np.median(parts[1:], 0).tolist(),
            strict=True,
        )
    )


def measure(folder: Path, case: dict) -> dict:
    """One case; the peak is that of this process, imports and all."""
    kind = case.pop("kind")
    kinds = {
        "machine": machine,
        "prepare": run_prepare,
        "span": run_span,
        "core": run_core,
        "basis": run_basis,
    }
    result = (kinds | {"direct": run_direct, "passes": run_passes})[kind](folder, **case)
    return result | {"gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def run_prepare(folder: Path) -> dict:
    """Mean over subjects, bases and coordinates, where they are not there yet."""
    start = time.perf_counter()
    model = span_model(folder)
    for split in ("train", "val"):
        CoordinateDataset(Prepared(folder, split, True), model.span)
    return {"seconds": time.perf_counter() - start}


def run_span(folder: Path, optimizer: str, measured_weight: float, precision: str) -> dict:
    """One pass of span training."""
    model = span_model(folder, measured_weight=measured_weight)
    data = CoordinateDataset(Prepared(folder, "train", True), model.span)
    return {"parts": updates(model.core, data, optimizer, precision, 23), "updates": 23}


def run_direct(folder: Path) -> dict:
    """Four updates of the full-size model."""
    data = Prepared(folder, "train", False)
    parts = updates(MultimodalAutoencoder(**data.model_dims), data, "SGD", "float32", 4)
    return {"parts": parts, "updates": -(-len(data) // BATCH)}


def run_core(folder: Path, n_trs: int) -> dict:
    """Growth of an update with the number of training TRs; the number of voxels does not enter."""
    return {
        "parts": updates(*core_of(n_trs), "AdamW", "float32", 12),
        "updates": -(-n_trs // BATCH),
    }


def run_basis(folder: Path, n_trs: int, n_values: int) -> dict:
    """Growth of the bases, from noise that is drawn anew in each of the three readings."""

    def blocks():
        for start in range(0, n_values, BLOCK_COLUMNS):
            yield np.random.default_rng(start).random((n_trs, min(BLOCK_COLUMNS, n_values - start)))

    start = time.perf_counter()
    for _ in fit_basis(blocks)[0]:
        pass
    return {"seconds": time.perf_counter() - start}


def run_passes(folder: Path, passes: int) -> dict:
    """What `load_or_train` does: the trainer itself, then the merged model.

    Training is in float32, at measured_weight 0, with validation, and checkpoints every five
    passes.
    """
    model = span_model(folder)
    config = TrainingConfig(epochs=passes, patience=passes, precision="float32", learning_rate=1e-4)
    data = {split: Prepared(folder, split, True) for split in ("train", "val")}
    times = [time.perf_counter()]
    with tempfile.TemporaryDirectory(dir=folder) as run:
        trainer = Trainer(model, data["train"], data["val"], config)
        trainer.fit(run, lambda history: times.append(time.perf_counter()), progress=False)
        losses = trainer.history[-1]
        del trainer  # with gradients and the optimiser's state
        start = time.perf_counter()
        merge([model], data["val"])
        merging = time.perf_counter() - start
    return {
        "median": float(np.median(np.diff(times))),
        "training": times[-1] - times[0],
        "merging": merging,
        "losses": losses,
    }


def core_of(n_trs: int) -> tuple[nn.Module, object]:
    """A core of `n_trs` coordinates and as many TRs of noise."""

    class Noise:
        def __len__(self):
            return n_trs

        def __getitem__(self, rows):
            widths = {"video": n_trs, "audio": N_AUDIO, "text": N_TEXT, "fmri": n_trs}
            return {name: torch.randn(len(rows), width) for name, width in widths.items()}

    sizes = {"video_dim": n_trs, "n_voxels": n_trs, "audio_features": N_AUDIO}
    core = MultimodalAutoencoder(**sizes)
    core.n_values = {"video": N_PIXELS, "fmri": N_VOXELS}
    return core, Noise()


def machine(folder: Path) -> dict:
    """What this machine can do: multiplications a second, and bytes read and written a second."""
    a = torch.randn(4096, 4096)
    x = torch.randn(100_000_000)
    y = torch.randn(100_000_000)
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        b = a.to(dtype)
        rates[name] = max(2 * 4096**3 / seconds(lambda b=b: b @ b) for _ in range(5))
    rates["bytes"] = max(12 * len(x) / seconds(lambda: x.add_(y)) for _ in range(5))
    return rates


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def floor(rates: dict, core: MultimodalAutoencoder, measured: bool, precision: str) -> float:
    """Seconds that an AdamW update cannot go below here.

    Each phase takes its arithmetic or its traffic, whichever is longer. Forward reads the weights,
    backward reads them and writes gradients, clipping reads gradients, AdamW reads four numbers per
    weight and writes three.
    """
    n_weights = core.parameter_count()
    decoder = sum(
        p.numel() for part in (core.decoder, core.encoder.to_bottleneck) for p in part.parameters()
    )
    used = n_weights + measured * decoder
    arithmetic = 2 * used * BATCH / rates[precision]
    traffic = 4 / rates["bytes"]
    return (
        max(arithmetic, traffic * used)
        + max(2 * arithmetic, traffic * (used + n_weights))
        + traffic * n_weights
        + 7 * traffic * n_weights
    )


def run(folder: Path, huge_pages: str = "1", **case) -> dict:
    """A case in a process of its own; huge pages are giblet's default and off in torch."""
    command = [sys.executable, __file__, str(folder), "--case", json.dumps(case)]
    environment = os.environ | {"THP_MEM_ALLOC_ENABLE": huge_pages}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def report(name: str, result: dict, lowest: float | None = None) -> tuple[float, float]:
    update = sum(result["parts"].values())
    parts = ", ".join(f"{part} {1000 * value:.0f}" for part, value in result["parts"].items())
    above = f"; {update / lowest:.1f} x the floor of {1000 * lowest:.0f} ms" if lowest else ""
    print(
        f"{name:28} {update:7.3f} s an update, {update * result['updates']:8.1f} s a pass of "
        f"{result['updates']}, {result['gigabytes']:5.2f} GB ({parts} ms{above})",
        flush=True,
    )
    return update, update * result["updates"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passes", type=int, default=0)
    parser.add_argument("--skip-direct", action="store_true")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.folder, arguments.case)))
        return
    folder = arguments.folder
    write_features(folder)
    rates = run(folder, kind="machine")
    print(", ".join(f"{name} {rates[name] / 1e9:.0f} G/s" for name in ("float32", "bf16", "bytes")))
    prepared = run(folder, kind="prepare")
    print(
        f"group mean, bases and coordinates, once: {prepared['seconds']:.0f} s, "
        f"{prepared['gigabytes']:.2f} GB"
    )
    with torch.device("meta"):  # this process stays small: what it starts inherits its peak
        cores = {n: core_of(n)[0] for n in (200, 736, 1976, 5000)}
    results = {}
    for case in SPAN_CASES:
        name = f"span {case['optimizer']} {case['precision']} m={case['measured_weight']}"
        lowest = floor(rates, cores[736], bool(case["measured_weight"]), case["precision"])
        results[name] = report(
            name, run(folder, kind="span", **case), lowest if case["optimizer"] == "AdamW" else None
        )
    for n_trs, core in cores.items():
        report(
            f"core of {n_trs} TRs, AdamW",
            run(folder, kind="core", n_trs=n_trs),
            floor(rates, core, False, "float32"),
        )
    for n_trs, n_values in (
        (200, N_PIXELS),
        (736, N_PIXELS),
        (1976, N_PIXELS),
        (736, N_VOXELS),
        (736, 3 * N_VOXELS),
    ):
        basis = run(folder, kind="basis", n_trs=n_trs, n_values=n_values)
        print(
            f"basis of {n_trs} TRs x {n_values:,}, once: {basis['seconds']:.0f} s, "
            f"{basis['gigabytes']:.2f} GB",
            flush=True,
        )
    if not arguments.skip_direct:
        for label, huge_pages in (("direct", "1"), ("direct, torch's pages", "0")):
            direct = report(f"{label} SGD float32 m=0", run(folder, huge_pages, kind="direct"))
            for name, (update, whole) in results.items():
                print(
                    f"  / {name}: {direct[0] / update:.1f} x an update, {direct[1] / whole:.0f} x "
                    "a pass"
                )
    if arguments.passes:
        passes = run(folder, kind="passes", passes=arguments.passes)
        print(
            f"{arguments.passes} passes with validation and checkpoints: "
            f"{passes['training'] / 60:.1f} min, median {passes['median']:.1f} s a pass; merged "
            f"with ridge regression in {passes['merging'] / 60:.1f} min; "
            f"{passes['gigabytes']:.2f} GB; last losses {passes['losses']}"
        )


if __name__ == "__main__":
    main()
