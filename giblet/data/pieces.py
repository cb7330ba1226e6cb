"""Where the TRs of the film lie in the files of a subject."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from giblet.images import load_series


@dataclass(frozen=True)
class Piece:
    """TRs of a file that follow each other in the film.

    Parameters
    ----------
    path : Path or None
        A series; None: nothing was measured.
    trs : slice
        TRs of the file; those beyond its end were not measured.
    """

    path: Path | None
    trs: slice

    @property
    def has(self) -> np.ndarray:
        """Which of its TRs the file has: (n_trs,) bool."""
        n_trs = 0 if self.path is None else load_series(self.path).shape[3]
        return np.arange(self.trs.start, self.trs.stop) < n_trs


def pieces_of(
    files: Sequence[Path | None], starts: Sequence[int], run_trs: Sequence[int]
) -> list[Piece]:
    """The pieces of all runs, in the order of the film.

    Parameters
    ----------
    files : one series of all runs, or one a run
    starts : of each run, TRs of its series before its film begins; () where all are 0
    run_trs : TRs of each run
    """
    starts = starts or [0] * len(run_trs)
    if len(files) > 1 or len(run_trs) == 1:
        found = zip(files, starts, run_trs, strict=True)
        return [Piece(path, slice(start, start + n_trs)) for path, start, n_trs in found]
    if not any(starts):
        return [Piece(files[0], slice(0, sum(run_trs)))]
    pieces = []
    stop = 0
    for start, n_trs in zip(starts, run_trs, strict=True):
        pieces.append(Piece(files[0], slice(stop + start, stop + start + n_trs)))
        stop += start + n_trs
    return pieces


def pieces_of_runs(pieces: Sequence[Piece], runs: Sequence[slice]) -> list[Piece]:
    """The piece of each run, where one may hold them all."""
    if len(pieces) == len(runs):
        return list(pieces)
    (whole,) = pieces
    first = whole.trs.start
    return [Piece(whole.path, slice(first + run.start, first + run.stop)) for run in runs]
