"""Reconstruction at the seed's size: what 184 TRs of measured brain gave, decoded on this machine.

    python benchmarks/reconstruction.py [--train 736] [--trs 184]

The full-size span model (259,200 pixels, 85,810 voxels, sound of 2,048 values) with weights of its
initialisation and random bases, read from disk. Prints the seconds for all modalities of all TRs,
in batches as scores and files take them, and the peak memory of the process; then the same of the
alternative, every weight of the same model in memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

N_PIXELS = 259_200
N_VOXELS = 85_810


def write_bases(folder: Path, n_train: int, n_pixels: int = N_PIXELS) -> None:
    """Random bases of the seed's sizes, nearly orthonormal: their values do not change the time."""
    generator = torch.Generator().manual_seed(0)
    report = {"id": "random", "n_trs": n_train}
    for name, n_values in (("video", n_pixels), ("fmri", N_VOXELS)):
        file = np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", np.float32, (n_values, n_train)
        )
        for start in range(0, n_values, 8192):
            rows = torch.randn(min(8192, n_values - start), n_train, generator=generator)
            file[start : start + len(rows)] = (rows / n_values**0.5).numpy()
        file.flush()
        report[name] = {"n_values": n_values, "n_coordinates": n_train, "explained": 1.0}
    (folder / "span.json").write_text(json.dumps(report))


def measure(folder: Path, n_trs: int, materialize: bool) -> None:
    """Decode once cold and once warm, and report."""
    from giblet.analysis.reconstruction import decode_batches
    from giblet.basis import Span
    from giblet.models import SpanAutoencoder

    model = SpanAutoencoder(Span.open(folder), audio_features=2048).eval()
    if materialize:
        model = model.materialize()
    fmri = np.random.default_rng(0).standard_normal((n_trs, N_VOXELS), np.float32)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        shapes = [tuple(batch["video"].shape) for batch in decode_batches(model, fmri)]
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"cold": seconds[0], "warm": seconds[1], "gigabytes": peak, "shapes": shapes}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=736)
    parser.add_argument("--trs", type=int, default=184)
    parser.add_argument("--measure", choices=("span", "materialized"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.folder, given.trs, given.measure == "materialized")
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        write_bases(Path(folder), given.train)
        for name in ("span", "materialized"):
            command = [sys.executable, *sys.argv, "--measure", name, "--folder", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            found = results[name] = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name:12} cold {found['cold']:5.2f} s  warm {found['warm']:5.2f} s  "
                f"{found['gigabytes']:5.2f} GB peak"
            )
    print(
        f"span / materialized: {results['span']['warm'] / results['materialized']['warm']:.2f} of "
        "the time"
    )


if __name__ == "__main__":
    main()
