"""Which volumes of a series were measured, and which look like none."""

from dataclasses import dataclass

import numpy as np

# What `Volumes` says of a TR, and what it takes to say so
FLAT = "have the same value in every voxel"
INCOMPLETE = "lack over a quarter of the voxels"
SPIKE = "are many times stronger or weaker than the others"
N_SAMPLED = 2048
MIN_TRS = 10
MIN_VOXELS = 10  # fewer are alike, or 0, by chance
FLAT_SD = 1e-6
MISSING = 0.25
RATIO = 7
N_SDS = 8
N_SDS_OF_FEW = 30
STEADY = 0.2
COARSE = 0.07


class Volumes:
    """What shows in each TR of a series whether it was measured, taken block by block.

    Beside a TR without a finite voxel and one that repeats a neighbour, these are TRs unlike the
    others of their run, by up to 2,048 voxels that vary:

    - flat: they have the same value in every voxel but those that are 0, as in a volume of zeros
    - incomplete: more than a quarter of the voxels that the median TR has are 0 or not finite
    - too strong or weak: the third quartile of magnitudes is 7 times the median TR's, or a
      seventh of it

    The last two must also lie 8 robust SDs (1.4826 x median absolute deviation) from the median,
    and be no more than a tenth of their run, which else is a part of it and no accident. Below 10
    voxels only the last is looked for, from 30 SDs, and nothing in integers so coarse that
    neighbouring voxels are often equal. So motion, drift, noise with heavy tails and masks of a few
    voxels lose no TR.
    """

    def __init__(self):
        self._finite = []
        self._changes = []
        self._figures = []
        self._last = None
        self._columns = None
        self._seen_finite = False

    def add(self, block: np.ndarray) -> None:
        """Take the next TRs: (n_block, n_voxels)."""
        finite = np.isfinite(block)
        changes = np.ones(len(block), bool)
        changes[1:] = (finite[1:] & (block[1:] != block[:-1])).any(1)
        if self._last is None:
            self._columns = _varying_columns(block, finite)
        else:
            changes[0] = (finite[0] & (block[0] != self._last)).any()
            if not self._seen_finite:  # a run that was not measured tells nothing of voxels
                self._columns = _varying_columns(block, finite)
        self._seen_finite |= bool(finite.any())
        self._finite.append(finite.any(1))
        self._changes.append(changes)
        self._figures.append(VolumeFigures.of(block[:, self._columns]))
        self._last = block[-1].copy()

    def left_out(self, runs: list[slice]) -> dict[str, np.ndarray]:
        """TRs that were not measured, (n_trs,) bool, by what they do."""
        finite = np.concatenate(self._finite)
        figures = VolumeFigures.joined(self._figures)
        repeats = np.append(~np.concatenate(self._changes) & finite, False)
        repeats = repeats[:-1] | repeats[1:]
        found = {"hold no finite value": ~finite, "repeat a neighbour": repeats}
        unlike = {reason: np.zeros(len(finite), bool) for reason in (FLAT, INCOMPLETE, SPIKE)}
        for run in runs:
            rows = np.arange(run.start, run.stop)[(finite & ~repeats)[run]]
            if len(rows) >= MIN_TRS:
                for reason, trs in figures.at(rows).unlike_others().items():
                    unlike[reason][rows] = trs
        return found | unlike


def _varying_columns(block: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Up to 2,048 voxels, evenly spread, that vary in the first block, or of all if none does."""
    varies = (finite[1:] & finite[:-1] & (block[1:] != block[:-1])).any(0)
    columns = np.flatnonzero(varies) if varies.any() else np.arange(block.shape[1])
    return columns[:: -(-len(columns) // N_SAMPLED)]


@dataclass(frozen=True)
class VolumeFigures:
    """What `Volumes` judges TRs by, (n_trs,) each, over a sample of `n_voxels` voxels.

    Voxels that are `present` are finite and not 0; `level` is the third quartile of magnitudes,
    `sd` that of the voxels present, `ties` how many voxels equal the next one.
    """

    n_voxels: int
    present: np.ndarray
    level: np.ndarray
    sd: np.ndarray
    ties: np.ndarray

    @classmethod
    @np.errstate(over="ignore", invalid="ignore")  # of squares of values near the largest float
    def of(cls, block: np.ndarray) -> "VolumeFigures":
        """Figures of (n_trs, n_voxels)."""
        n_voxels = block.shape[1]
        values = np.where(np.isfinite(block), block, 0).astype(np.float64)
        is_present = values != 0
        present = is_present.sum(1)
        n = np.maximum(present, 1)
        deviations = np.where(is_present, values - (values.sum(1) / n)[:, None], 0)
        sd = np.sqrt(np.square(deviations).sum(1) / n)
        quartile = 3 * n_voxels // 4
        level = np.partition(np.abs(values), quartile, axis=1)[:, quartile]
        ties = (values[:, 1:] == values[:, :-1]).sum(1)
        return cls(n_voxels, present, level, sd, ties)

    @classmethod
    def joined(cls, parts: "list[VolumeFigures]") -> "VolumeFigures":
        """The figures of successive blocks."""
        names = ("present", "level", "sd", "ties")
        columns = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
        return cls(parts[-1].n_voxels, *columns)

    def at(self, trs: np.ndarray) -> "VolumeFigures":
        """The figures of some TRs."""
        columns = (self.present, self.level, self.sd, self.ties)
        return VolumeFigures(self.n_voxels, *(column[trs] for column in columns))

    @np.errstate(divide="ignore", invalid="ignore")  # the logarithm of 0
    def unlike_others(self) -> dict[str, np.ndarray]:
        """Which TRs of a run are flat, incomplete, or too strong or weak, (n_trs,) bool."""
        many = self.n_voxels >= MIN_VOXELS
        flat = many & (self.sd < FLAT_SD * np.median(self.sd))
        usual = np.median(self.present)
        missing = usual - self.present
        far = N_SDS * 1.4826 * np.median(np.abs(missing))
        incomplete = many & (missing > np.maximum(MISSING * usual, far)) & ~flat
        ratio = np.log(self.level) - np.log(np.median(self.level))
        spread = 1.4826 * np.median(np.abs(ratio))
        n_sds = N_SDS if many else N_SDS_OF_FEW
        spike = (np.abs(ratio) > np.maximum(np.log(RATIO), n_sds * spread)) & ~flat & ~incomplete
        if spread > STEADY:  # magnitudes of demeaned voxels come near 0 by chance
            spike &= ratio > 0
        most = len(flat) / 10
        found = {
            FLAT: flat,
            INCOMPLETE: incomplete & (incomplete.sum() <= most),
            SPIKE: spike & (spike.sum() <= most),
        }
        return {reason: trs & ~self._is_coarse for reason, trs in found.items()}

    @property
    def _is_coarse(self) -> bool:
        """Whether the values are so few that voxels are alike, or 0, by chance."""
        uneven = self.sd > 0
        return uneven.any() and self.ties[uneven].mean() > COARSE * (self.n_voxels - 1)
