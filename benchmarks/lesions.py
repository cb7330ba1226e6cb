"""Lesions at the seed's size: a slider's picture, and a sweep of 300 regions over 184 TRs.

    python benchmarks/lesions.py [--train 736] [--lesions 300] [--colour]

The full-size span model (259,200 pixels, or 777,600 values in colour, and 85,810 voxels) with
weights of its initialisation and random bases of 736 TRs, on the simulated full-size data set,
which is written first if it is not there. Prints the milliseconds from a control's change to the
new PNG in the kernel; the seconds of the sweep, beside the alternative that lesions all voxels anew
and takes them through Layer 6; and those of a null of 199 random regions.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from reconstruction import write_bases

from giblet import explorer as live
from giblet.analysis.lesion_cost import random_regions
from giblet.analysis.lesions import Brain, Lesion, lesion_voxels
from giblet.basis import Span
from giblet.data import MultimodalDataset, default_data_dir
from giblet.models import SpanAutoencoder
from giblet.recipe import FULL_SIZE

N_TRS = 184
REGION_VOXELS = 300


def time_controls(explorer: live.LesionExplorer, n: int = 50) -> None:
    """Change each control `n` times."""
    names = explorer.regions.names
    rng = np.random.default_rng(0)
    explorer.set(regions=(names[0],))
    changes = {
        "strength": lambda i: {"strength": 0.05 * (1 + i % 19)},
        "units": lambda i: {"units": (i, 200 + i)},
        "TR": lambda i: {"tr": 1 + i % (explorer.dataset.n_trs - 1)},
        "region": lambda i: {"regions": (names[i % len(names)], names[(i + 3) % len(names)])},
        "only, region": lambda i: {
            "regions": (names[(i + int(rng.integers(1, 5))) % len(names)], "Visual")
        },
    }
    for name, change in changes.items():
        explorer.set(mode="only" if name.startswith("only") else "without")
        milliseconds = []
        for i in range(n):
            changes = change(i)
            start = time.perf_counter()
            explorer.set(**changes)
            milliseconds.append(1000 * (time.perf_counter() - start))
        median, p95 = np.quantile(milliseconds, [0.5, 0.95])
        print(f"{name:13} to new PNG: median {median:5.1f} ms, p95 {p95:5.1f} ms")


def time_sweep(brain: Brain, n_lesions: int) -> None:
    """The sweep, ten of the same lesions the long way, and a null."""
    places = brain.dataset.coordinates
    masks = random_regions(places, REGION_VOXELS, n_lesions, np.random.default_rng(0))
    lesions = [Lesion(brain, mask) for mask in masks]
    start = time.perf_counter()
    swept = brain.of_lesions(lesions)
    sweep = time.perf_counter() - start
    print(f"{n_lesions} region lesions x {len(brain.fmri)} TRs: {sweep:.1f} s")
    start = time.perf_counter()
    with torch.inference_mode():
        long_way = [
            brain.model.fmri_to_bottleneck(lesion_voxels(brain.fmri, mask)) for mask in masks[:10]
        ]
        direct = brain.of_bottlenecks(torch.stack(long_way))
    long_way = (time.perf_counter() - start) / 10
    largest = max(np.nanmax(np.abs(direct[name] - swept[name][:10])) for name in brain.names)
    print(
        f"a lesion in the sweep / by lesioning all voxels anew: {sweep / n_lesions / long_way:.2f} "
        "of the time"
    )
    print(f"largest difference of the two in a score: {largest:.1e}")
    start = time.perf_counter()
    lesions[0].null(n_permute=199)
    print(f"null of 199 random regions: {time.perf_counter() - start:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=736)
    parser.add_argument("--lesions", type=int, default=300)
    parser.add_argument("--colour", action="store_true")
    given = parser.parse_args()
    live.SETTLE_SECONDS = 1e6  # sound, text and bars stay out of the way
    film = replace(FULL_SIZE.video, colour=given.colour)
    features = {"video_processor": film, "audio_processor": FULL_SIZE.audio}
    data = MultimodalDataset(
        default_data_dir(full_size=True), split="test", average=True, **features
    )
    with tempfile.TemporaryDirectory() as folder:
        write_bases(Path(folder), given.train, film.video_dim)
        torch.manual_seed(0)
        model = SpanAutoencoder(Span.open(folder), audio_features=2048).eval()
        brain = Brain(model, data).at(np.arange(N_TRS) % data.n_trs)
        time_sweep(brain, given.lesions)
        explorer = live.LesionExplorer(model, data)
        time_controls(explorer)
        explorer.close()


if __name__ == "__main__":
    main()
