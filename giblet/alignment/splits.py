"""Contiguous train, validation and test blocks with a gap between them."""

import math
from collections.abc import Sequence

import numpy as np

from giblet.alignment.hrf import HRF_SECONDS

SPLITS = ("train", "val", "test")


def gap_trs(tr: float, window_trs: int = 1) -> int:
    """TRs to leave out between blocks so that no BOLD sample sees the stimulus of two blocks."""
    return window_trs + math.ceil(HRF_SECONDS / tr)


def split_trs(run_lengths: Sequence[int], fractions: Sequence[float], gap: int) -> np.ndarray:
    """Label every TR of every run 'train', 'val', 'test' or 'gap'.

    Each run is cut in this order, train | gap | val | gap | test, the fractions being of the TRs outside
    the gaps. Blocks are contiguous: neighbouring TRs are nearly copies of each other.

    Parameters
    ----------
    run_lengths : sequence of int
        TRs of each run.
    fractions : (train, val, test)
        Positive, sum to 1.
    gap : int
        TRs left out between two blocks, see `gap_trs`.

    Returns
    -------
    (sum(run_lengths),) array of str
    """
    if len(fractions) != 3 or min(fractions) <= 0 or not math.isclose(sum(fractions), 1):
        raise ValueError(
            f"fractions are {tuple(fractions)}, expected three positive numbers (train, val, test) of sum 1."
        )
    labels = []
    for run, n_trs in enumerate(run_lengths):
        usable = n_trs - 2 * gap
        n_train, n_val = round(fractions[0] * usable), round(fractions[1] * usable)
        counts = (n_train, gap, n_val, gap, usable - n_train - n_val)
        if min(counts[::2]) < 2:
            raise ValueError(
                f"run {run + 1} has {n_trs} TRs, too few for two gaps of {gap} and three blocks: "
                f"use longer runs or a smaller gap."
            )
        labels.append(np.repeat(["train", "gap", "val", "gap", "test"], counts))
    return np.concatenate(labels)
