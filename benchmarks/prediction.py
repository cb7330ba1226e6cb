"""The null of held-out prediction at full size, compared with a ridge fit on the same voxels.

    python benchmarks/prediction.py [--voxels 85810] [--draws 2000]

Each runs in a process of its own. Noise of the seed's size: one run of 736 TRs with a held-out
block of 184; the ridge has 6,144 features, 9 shrinkages and 5 folds, by himalaya. Prints the
seconds of each, and its peak memory, imports and 0.51 GB of data included.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

N_TRS = 736
N_HELD_OUT = 184
GAP = 20
N_FEATURES = 6144


def null(n_voxels: int, n_draws: int) -> None:
    """r and p of every voxel."""
    from giblet.analysis.chance import voxelwise_null

    rng = np.random.default_rng(0)
    fmri_pred, fmri = (rng.standard_normal((N_TRS, n_voxels), np.float32) for _ in range(2))
    held_out = np.arange(N_TRS) >= N_TRS - N_HELD_OUT
    start = time.perf_counter()
    _, p = voxelwise_null(fmri_pred, fmri, np.zeros(N_TRS, int), held_out, GAP, n_draws)
    report(start, below_05=float(np.mean(p < 0.05)))


def ridge(n_voxels: int, n_draws: int) -> None:
    """The alternative that the field waits for."""
    from himalaya.kernel_ridge import KernelRidgeCV

    rng = np.random.default_rng(0)
    features = rng.standard_normal((N_TRS, N_FEATURES), np.float32)
    fmri = rng.standard_normal((N_TRS, n_voxels), np.float32)
    start = time.perf_counter()
    KernelRidgeCV(alphas=np.logspace(-2, 6, 9), cv=5).fit(features, fmri)
    report(start)


def report(start: float, **more) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"seconds": time.perf_counter() - start, "gigabytes": peak} | more))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voxels", type=int, default=85_810)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--measure", choices=("null", "ridge"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        {"null": null, "ridge": ridge}[given.measure](given.voxels, given.draws)
        return
    results = {}
    for name in ("null", "ridge"):
        done = subprocess.run(
            [sys.executable, *sys.argv, "--measure", name],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        results[name] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{name:6} {results[name]['seconds']:6.1f} s  {results[name]['gigabytes']:5.2f} GB at "
            "the peak"
        )
    print(f"noise of no relation: {results['null']['below_05']:.1%} of voxels at p < .05")
    print(
        f"null / ridge: {results['null']['seconds'] / results['ridge']['seconds']:.2f} of the time"
    )


if __name__ == "__main__":
    main()
