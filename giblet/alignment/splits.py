"""Contiguous train, validation and test blocks with a gap between them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from giblet.alignment.hrf import HRF_SECONDS

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Splitting:
    """How the TRs of a data set are split.

    Parameters
    ----------
    context : (before, after)
        TRs of stimulus around each TR.
    fractions : (train, val, test)
        Shares of each run, in this order, see `split_trs`.
    test_runs : sequence of int
        Runs, counted from 0, that are held out as a whole.
    """

    context: Sequence[int] = (0, 0)
    fractions: Sequence[float] = (0.6, 0.15, 0.25)
    test_runs: Sequence[int] = ()

    def __post_init__(self):
        if len(self.context) != 2 or min(self.context) < 0:
            raise ValueError(f"context is {self.context}, expected TRs (before, after), 0 or more.")

    def gap(self, tr: float) -> int:
        """TRs between two splits: context and hemodynamic response."""
        return gap_trs(tr, 1 + sum(self.context))


def gap_trs(tr: float, window_trs: int = 1) -> int:
    """TRs to leave out between blocks so that no BOLD sample sees the stimulus of two blocks."""
    return window_trs + math.ceil(HRF_SECONDS / tr)


def split_trs(
    run_lengths: Sequence[int], fractions: Sequence[float], gap: int, test_runs: Sequence[int] = ()
) -> np.ndarray:
    """Label every TR of every run 'train', 'val', 'test' or 'gap'.

    Each run is cut in this order, train | gap | val | gap | test, the fractions being of the TRs
    outside the gaps. Blocks are contiguous: neighbouring TRs are nearly copies of each other.

    Parameters
    ----------
    run_lengths : sequence of int
        TRs of each run.
    fractions : (train, val, test)
        Sum to 1; train and test are positive, and val may be 0.
    gap : int
        TRs left out between two blocks, see `gap_trs`.
    test_runs : sequence of int
        Runs, counted from 0, that are 'test' as a whole. The others are then cut into train | gap |
        val, in proportion of these two fractions.

    Returns
    -------
    (sum(run_lengths),) array of str
    """
    if (
        len(fractions) != 3
        or min(fractions) < 0
        or fractions[0] == 0
        or fractions[2] == 0
        or not math.isclose(sum(fractions), 1)
    ):
        raise ValueError(
            f"fractions are {tuple(fractions)}, expected (train, val, test) of sum 1, of which "
            "only val may be 0."
        )
    names = tuple(name for name, share in zip(SPLITS, fractions, strict=True) if share > 0)
    shares = [share for share in fractions if share > 0]
    if test_runs:
        if not set(test_runs) < set(range(len(run_lengths))):
            raise ValueError(
                f"test_runs are {list(test_runs)}, expected some of 0 to {len(run_lengths) - 1}, "
                "not all: leave a run to train on."
            )
        names = names[:-1]
        shares = [share / sum(shares[:-1]) for share in shares[:-1]]
    labels = []
    for run, n_trs in enumerate(run_lengths):
        if run in test_runs:
            labels.append(np.repeat("test", n_trs))
            continue
        usable = n_trs - gap * (len(names) - 1)
        counts = [round(share * usable) for share in shares[:-1]]
        counts.append(usable - sum(counts))
        if min(counts) < 2:
            raise ValueError(
                f"run {run + 1} has {n_trs} TRs, too few for {len(names)} blocks with gaps of "
                f"{gap} between them: use longer runs or a smaller gap."
            )
        blocks = [np.repeat([name, "gap"], [n, gap]) for name, n in zip(names, counts, strict=True)]
        labels.append(np.concatenate(blocks)[:n_trs])
    return np.concatenate(labels)


def label_trs(
    run_trs: Sequence[int],
    first: Sequence[int],
    stop: Sequence[int],
    tr: float,
    splitting: Splitting,
) -> np.ndarray:
    """Label every TR of every run 'train', 'val', 'test', 'gap' or 'cropped'.

    Parameters
    ----------
    run_trs : TRs of each run
    first, stop : of each run
        TRs `first` to `stop` have stimulus and BOLD; the others are 'cropped', and so are those
        whose context would reach beyond them.
    tr : float
        Repetition time in seconds.

    Returns
    -------
    (sum(run_trs),) array of str
    """
    before, after = splitting.context
    usable = [
        max(0, end - after - (begin + before)) for begin, end in zip(first, stop, strict=True)
    ]
    kept = split_trs(usable, splitting.fractions, splitting.gap(tr), splitting.test_runs)
    labels = np.full(sum(run_trs), "cropped", dtype="<U7")
    blocks = np.split(kept, np.cumsum(usable)[:-1])
    start = 0
    for n_trs, begin, block in zip(run_trs, first, blocks, strict=True):
        row = start + begin + before
        labels[row : row + len(block)] = block
        start += n_trs
    return labels
