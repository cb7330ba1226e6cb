"""Which moment of the movie is it? Identification among distractors, chance and a null."""

from dataclasses import dataclass

import numpy as np

from giblet.analysis.bootstrap import bootstrap_means, confidence_interval, default_block_trs
from giblet.analysis.chance import ROUNDING, held_out_blocks, p_values


def pairwise_accuracy(
    similarity: np.ndarray,
    tr_index: np.ndarray,
    run: np.ndarray,
    exclusion: int,
    block_rows: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
    """How often each reconstruction is more alike to a TR than to that TR's distractors.

    Parameters
    ----------
    similarity : (n_reconstructed, n_trs)
        Of any reconstructions with the TRs of a split, see `reconstruction.similarity`.
    tr_index, run : (n_trs,)
        Of the split.
    exclusion : int
        Distractors of a TR are the split's TRs of other runs, and of its own run those at least
        this far away: its neighbours show the same scene.

    Returns
    -------
    accuracy : (n_reconstructed, n_trs) float64
        Share of the distractors that are less alike. Ties count half, and so do ties but for
        rounding: within `ROUNDING` of the largest similarity, as the products of equal rows with
        TRs of equal features are. NaN where a similarity is.
    n_distractors : (n_trs,) int

    Raises
    ------
    ValueError
        If `exclusion` leaves a TR no distractor.
    """
    near = np.abs(tr_index[:, None] - tr_index) < exclusion
    is_distractor = ~(near & (run[:, None] == run))  # (n_trs, n_distractors)
    n_distractors = is_distractor.sum(1)
    if n_distractors.min() < 1:
        raise ValueError(
            f"exclusion is {exclusion} TRs, which leaves some of {len(run)} TRs no distractor: "
            "lower it."
        )
    accuracy = np.empty(similarity.shape)
    tolerance = ROUNDING * np.abs(similarity[np.isfinite(similarity)]).max(initial=0)
    for start in range(0, len(similarity), block_rows):
        rows = similarity[start : start + block_rows]
        for index, others in enumerate(is_distractor):
            more = _compare(rows[:, [index]], rows[:, others], tolerance)
            accuracy[start : start + block_rows, index] = 0.5 + more.mean(1, dtype=np.float64) / 2
    return accuracy, n_distractors


def _compare(own: np.ndarray, others: np.ndarray, tolerance: float) -> np.ndarray:
    """1 where `own` is larger, -1 where it is smaller, 0 within the tolerance, NaN of NaN."""
    with np.errstate(invalid="ignore"):
        difference = own - others
        return np.where(np.abs(difference) <= tolerance, 0, np.sign(difference))


@dataclass(frozen=True)
class Identification:
    """Identification of the TRs of a split from their own reconstructions.

    Parameters
    ----------
    two_way : (n_trs,) float64
        Share of the distractors less alike to the TR's reconstruction than the TR itself; chance is
        .5. NaN where the reconstruction is.
    rank : (n_trs,) float64
        1 + the number of distractors more alike; ties count half.
    n_distractors, tr_index, run : (n_trs,) int
    null : (n_permute,) float64
        Mean `two_way` from reconstructions of other times, see `identify`.
    """

    two_way: np.ndarray
    rank: np.ndarray
    n_distractors: np.ndarray
    tr_index: np.ndarray
    run: np.ndarray
    null: np.ndarray

    @property
    def p(self) -> float:
        """Of the mean `two_way` in the null, see `p_values`; 1 where nothing depends on time."""
        return float(p_values(self.two_way.mean(dtype=np.float64), self.null))

    def top(self, k: int) -> tuple[float, float]:
        """Share of the TRs that are among the `k` most alike, and what chance gives.

        The share is NaN where a rank is.
        """
        among = np.where(np.isnan(self.rank), np.nan, self.rank <= k)
        chance = np.minimum(k / (self.n_distractors + 1), 1)
        return float(among.mean()), float(chance.mean())

    def interval(
        self, block_trs: int | None = None, n_boot: int = 1000, random_state: int = 0
    ) -> tuple[float, float]:
        """95 % interval of the mean `two_way` over resampled blocks of TRs.

        See `default_block_trs`.
        """
        block_trs = block_trs or default_block_trs(self.run)
        draws = bootstrap_means(self.two_way, self.run, block_trs, n_boot, random_state)
        mean = self.two_way.mean(dtype=np.float64)
        low, high = confidence_interval(mean, draws, len(self.run) / block_trs)
        return float(low), float(high)


def identify(
    similarity: np.ndarray,
    run: np.ndarray,
    held_out: np.ndarray,
    tr_index: np.ndarray,
    exclusion: int,
    n_permute: int = 2000,
    random_state: int | np.random.Generator = 0,
) -> Identification:
    """Identify held-out TRs, beside the same from the reconstructions of other times of their run.

    The null is that of `chance.window_null`: what brains at least `exclusion` TRs away gave is
    compared with the held-out block as if it were its own. A draw takes one window from each run,
    independently.

    Parameters
    ----------
    similarity : (n_trs, n_held_out)
        Of reconstructions from whole runs of brain with the held-out TRs.
    run, tr_index : (n_trs,)
        Of the whole runs.
    held_out : (n_trs,) bool
    exclusion : int
        The gap between splits, see `pairwise_accuracy`.

    Raises
    ------
    ValueError
        If a run is too short to hold another window, or a TR has no distractor.
    """
    rng = np.random.default_rng(random_state)
    place = np.cumsum(held_out) - 1  # column of a held-out TR
    accuracy, n_distractors = pairwise_accuracy(
        similarity, tr_index[held_out], run[held_out], exclusion
    )
    two_way = accuracy[held_out, place[held_out]]
    null = np.zeros(n_permute)
    for index, rows, block in held_out_blocks(run, held_out):
        columns = place[rows[block]]
        starts = np.arange(len(rows) - len(block) + 1)
        windows = accuracy[rows[starts[:, None] + np.arange(len(block))], columns].mean(1)
        others = windows[np.abs(starts - block[0]) >= exclusion]
        if len(others) == 0:
            raise ValueError(
                f"run {index} has no other window {exclusion} TRs away: use longer runs."
            )
        null += len(block) / held_out.sum() * rng.choice(others, n_permute)
    rank = 1 + np.round(2 * (1 - two_way) * n_distractors) / 2  # ties make halves, rounding nothing
    return Identification(two_way, rank, n_distractors, tr_index[held_out], run[held_out], null)
