"""Reading one real-size subject: giblet's stream against indexing the whole array.

    python benchmarks/nifti.py SERIES.nii.gz [--repeats 3]

Each runs in a process of its own. Both give the same voxels of the same mask; giblet also writes
them to disk and finds TRs and voxels that cannot be used. Prints the median seconds and the peak
memory of each, and their ratios. Without a series a 61 x 73 x 61 x 1,976 one of noise is written
first.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from giblet.data.fmri import FMRIProcessor, template_mask
from giblet.data.pieces import Piece


def whole(path: str, mask_img) -> None:
    """The alternative: decompress everything, then index."""
    np.asarray(nib.load(path).dataobj)[np.asarray(mask_img.dataobj) > 0]


def streamed(path: str, mask_img) -> None:
    """What `prepare` does with each subject."""
    n_trs = nib.load(path).shape[3]
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.npy"
        FMRIProcessor().scan(
            [Piece(Path(path), slice(0, n_trs))],
            mask_img,
            [slice(0, n_trs)],
            np.ones(n_trs, bool),
            raw,
            lambda n: None,
        )


def measure(name: str, path: str) -> None:
    """Run one of the two and print its seconds and the memory it added to that of the imports."""
    mask_img = template_mask(nib.load(path))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    {"whole": whole, "streamed": streamed}[name](path, mask_img)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {"seconds": seconds, "gigabytes": peak * 1024 / 1e9, "before": before * 1024 / 1e9}
        )
    )


def write_noise(path: Path) -> None:
    """A series of the real size, of integers as scanners write them."""
    rng = np.random.default_rng(0)
    volume = rng.integers(800, 1200, (61, 73, 61, 1976), dtype=np.int16)
    nib.save(
        nib.Nifti1Image(
            volume, np.array([[3.0, 0, 0, -90], [0, 3, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]])
        ),
        path,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("series", nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", choices=("whole", "streamed"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.series)
        return
    with tempfile.TemporaryDirectory() as folder:
        series = arguments.series
        if series is None:
            series = str(Path(folder) / "noise.nii.gz")
            write_noise(Path(series))
        runs = {"whole": [], "streamed": []}
        for _ in range(arguments.repeats):
            for name, results in runs.items():  # in turn, so that the machine's mood is shared
                command = [sys.executable, __file__, series, "--measure", name]
                results.append(
                    json.loads(
                        subprocess.run(command, capture_output=True, check=True, text=True).stdout
                    )
                )
    seconds = {
        name: statistics.median(r["seconds"] for r in results) for name, results in runs.items()
    }
    memory = {name: max(r["gigabytes"] for r in results) for name, results in runs.items()}
    for name in runs:
        print(f"{name:9} {seconds[name]:6.1f} s  {memory[name]:5.2f} GB at the peak")
    print(
        f"streamed / whole: {seconds['streamed'] / seconds['whole']:.2f} of the time, "
        f"{memory['streamed'] / memory['whole']:.2f} of the memory"
    )


if __name__ == "__main__":
    main()
