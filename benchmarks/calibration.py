"""How often does a silent network look predicted? Simulate, train and test anew with many seeds.

    python benchmarks/calibration.py --seeds 20

Every seed draws another film, other brains, other initial weights. z is held-out r against the
network-mean null of `network_table`. Takes some two minutes a seed on two cores.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import norm

from giblet.analysis.prediction import Prediction
from giblet.data.simulation.dataset import simulate_dataset
from giblet.data.simulation.tuning import PLANTED
from giblet.runs import load_or_train
from giblet.training import TrainingConfig


def z_scores(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """z of the planted and of the silent networks."""
    with tempfile.TemporaryDirectory() as folder:
        data = simulate_dataset(Path(folder) / "data", random_state=seed, progress=False)
        run = load_or_train(data, TrainingConfig(random_state=seed), progress=False)
        table = Prediction(run.model, run.data["all"]).network_table()
    is_planted = table.index.isin(list(PLANTED))
    return table["z"].to_numpy()[is_planted], table["z"].to_numpy()[~is_planted]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    n_seeds = parser.parse_args().seeds
    everything = []
    for seed in range(n_seeds):
        planted, silent = z_scores(seed)
        everything.append((planted, silent))
        print(
            f"seed {seed:2d}  planted z {np.sort(planted).round(1)}  silent z "
            f"{np.sort(silent).round(1)}",
            flush=True,
        )
    planted, silent = (np.stack(values) for values in zip(*everything, strict=True))
    missed = (planted.min(1) <= 3).sum()
    print(
        f"\nplanted: {missed} of {n_seeds} seeds with a z of 3 or less, smallest "
        f"{planted.min():.1f}"
    )
    print(
        f"silent: {(np.abs(silent).max(1) >= 3).sum()} of {n_seeds} seeds with a |z| of 3 or more"
    )
    print(f"silent z: mean {silent.mean():.2f}, SD {silent.std():.2f} (calibrated: 0 and 1)")
    for level in (0.05, 0.01):
        share = (silent > norm.isf(level)).mean()
        print(f"silent z above the one-sided {level:.0%} point: {share:.1%}")


if __name__ == "__main__":
    main()
