"""Cleaning a series of fMRIPrep against nilearn's `clean_img`: seconds and memory.

    python benchmarks/cleaning.py [--large]

A series of noise, with confounds, at 3 mm and 600 TRs: as `prepare` does it, in blocks, against
`clean_img` with the same confounds and mask. Each runs in a process of its own, and the result of
both is compared. With `--large` ours alone, at 2 mm and 1,976 TRs (4.3 GB of int16), of which
`clean_img` would hold several copies in float64. A few minutes, with `--large` about ten more.
"""

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.image import clean_img
from nilearn.interfaces.fmriprep import load_confounds_strategy
from nilearn.masking import apply_mask

from giblet.data.cleaning import Cleaning
from giblet.data.fmri import FMRIProcessor, template_mask
from giblet.data.pieces import Piece

TR = 1.5
STEM = "sub-01_task-film"
NAME = f"{STEM}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
GRIDS = {"3 mm, 600 TRs": ((65, 77, 65), 3, 600), "2 mm, 1,976 TRs": ((97, 115, 97), 2, 1976)}
ORIGIN = (-96.0, -132.0, -78.0)
BLOCK = 16  # TRs written at a time


def write_series(folder: Path, shape: tuple[int, ...], mm: int, n_trs: int) -> None:
    """Integers as scanners write them, and confounds of which none is in the noise."""
    rng = np.random.default_rng(0)
    affine = np.diag([mm, mm, mm, 1.0])
    affine[:3, 3] = ORIGIN
    header = nib.Nifti1Header()
    header.set_data_shape((*shape, n_trs))
    header.set_data_dtype(np.int16)
    header.set_sform(affine, 4)
    header.set_zooms((mm, mm, mm, TR))
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    volume = rng.integers(800, 1200, (*shape, BLOCK), dtype=np.int16)
    with gzip.open(folder / NAME, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        for start in range(0, n_trs, BLOCK):
            block = np.roll(volume, start, axis=2)[..., : min(BLOCK, n_trs - start)]
            file.write(block.tobytes(order="F"))
    motion = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    suffixes = ("", "_derivative1", "_power2", "_derivative1_power2")
    names = [name + suffix for name in motion for suffix in suffixes] + ["csf", "white_matter"]
    columns = {name: rng.standard_normal(n_trs) for name in names}
    times = (np.arange(n_trs) + 0.5) / n_trs
    n_cosines = int(2 * n_trs * TR / 128)
    columns |= {f"cosine{k:02d}": np.cos(np.pi * (k + 1) * times) for k in range(n_cosines)}
    table = folder / f"{STEM}_desc-confounds_timeseries.tsv"
    pd.DataFrame(columns).to_csv(table, sep="\t", index=False)
    table.with_suffix(".json").write_text("{}")


def ours(folder: Path, mask_img, out: Path) -> None:
    """What `prepare` does with a run of a subject."""
    n_trs = nib.load(folder / NAME).shape[3]
    FMRIProcessor(TR, cleaning=Cleaning("simple", detrend=True)).scan(
        [Piece(folder / NAME, slice(0, n_trs))],
        mask_img,
        [slice(0, n_trs)],
        np.ones(n_trs, bool),
        out,
        lambda n: None,
    )


def nilearns(folder: Path, mask_img, out: Path) -> None:
    """The same with `clean_img`."""
    confounds, _ = load_confounds_strategy(str(folder / NAME), "simple")
    image = clean_img(folder / NAME, confounds=confounds, standardize=None, mask_img=mask_img)
    np.save(out, apply_mask(image, mask_img).astype(np.float32))


def measure(folder: Path, name: str) -> None:
    """Run one of both and print its seconds and the memory it added to that of the imports."""
    mask_img = template_mask(nib.load(folder / NAME))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    {"ours": ours, "clean_img": nilearns}[name](folder, mask_img, folder / f"{name}.npy")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "GB": peak * 1024 / 1e9, "before": before * 1024 / 1e9}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "NAME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(Path(given.measure[0]), given.measure[1])
        return
    for size, names in zip(GRIDS, (("ours", "clean_img"), ("ours",)), strict=True):
        if len(names) == 1 and not given.large:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_series(folder, *GRIDS[size])
            found = {}
            for name in names:
                command = [sys.executable, __file__, "--measure", temporary, name]
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[name] = json.loads(told.splitlines()[-1])
                print(size, name, {key: round(x, 2) for key, x in found[name].items()}, flush=True)
            if len(names) == 2:
                report(folder, found)


def report(folder: Path, found: dict[str, dict]) -> None:
    """Ratios, and how far the results are apart."""
    one, other = (found[name] for name in ("ours", "clean_img"))
    print(f"seconds: {one['seconds'] / other['seconds']:.2f} of those of clean_img")
    print(f"memory: {one['GB'] / other['GB']:.2f} of that of clean_img")
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in found]
    apart = max(np.abs(a - b).max() for a, b in zip(*arrays, strict=True))
    print(f"largest difference: {apart:.2g}, of noise with an SD of {np.std(arrays[1][0]):.0f}")


if __name__ == "__main__":
    main()
