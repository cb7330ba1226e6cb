"""What a lesion costs beside lesions of the same size at random places."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from giblet.analysis.chance import PRECISION, p_values, z_scores
from giblet.data import MultimodalDataset


@dataclass(frozen=True)
class LesionEffect:
    """What one lesion costs in one modality: intact minus lesioned score.

    Parameters
    ----------
    intact, lesioned : (n_trs,)
        Scores, see `Brain`.
    null : (n_permute,)
        Mean cost of random lesions of the same size.
    mode : 'without' or 'only'
        What a lesion shows: that it costs more than random ones, or, where only a region is left,
        that it costs less.
    """

    intact: np.ndarray
    lesioned: np.ndarray
    null: np.ndarray
    mode: str = "without"

    @property
    def effect(self) -> float:
        """Mean over the TRs that have a score; positive is harm. NaN where none has."""
        return float(mean_cost(self.intact, self.lesioned))

    @property
    def z(self) -> float:
        """In SDs of the null, from its mean; NaN where `p` is, and where the null does not vary."""
        return float(z_scores(self.effect, self.null, self._rounding))

    @property
    def p(self) -> float:
        """One-sided: share of the null, (b + 1) / (n + 1), that costs at least as much.

        With mode 'only', at most as much. NaN where the effect or a draw is not a finite number,
        see `p_values`.
        """
        sign = 1 if self.mode == "without" else -1
        return float(p_values(sign * self.effect, sign * self.null, self._rounding))

    @property
    def _rounding(self) -> float:
        """Error of a cost: scores are 1 - error / error of the mean, or cosines."""
        kind = np.result_type(self.intact, self.lesioned)
        precision = np.finfo(kind).eps if np.issubdtype(kind, np.floating) else PRECISION
        size = 1 + mean_over_trs(np.abs(self.intact)) + mean_over_trs(np.abs(self.lesioned))
        return float(precision * size)


def mean_over_trs(scores: np.ndarray) -> np.ndarray:
    """Mean over the TRs whose score is not NaN: (..., n_trs) -> (...) float64; NaN if all are."""
    scores = np.asarray(scores, np.float64)
    scored = ~np.isnan(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scored, scores, 0).sum(-1) / scored.sum(-1)


def mean_cost(intact: np.ndarray, lesioned: np.ndarray) -> np.ndarray:
    """Intact minus lesioned score, (..., n_trs) each, as `mean_over_trs`: (...) float64."""
    with np.errstate(invalid="ignore"):
        return mean_over_trs(np.asarray(intact, np.float64) - lesioned)


def random_regions(
    coordinates: np.ndarray, size: int, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Contiguous regions at random places: (n_draws, n_voxels) bool.

    Each holds the `size` voxels nearest to a random one.

    Parameters
    ----------
    coordinates : (n_voxels, 3)
        In mm.
    """
    _, nearest = cKDTree(coordinates).query(
        coordinates[rng.integers(len(coordinates), size=n_draws)], k=size
    )
    regions = np.zeros((n_draws, len(coordinates)), bool)
    np.put_along_axis(regions, nearest.reshape(n_draws, size), True, axis=1)
    return regions


def random_lesions(
    dataset: MultimodalDataset, size: int, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Lesions of `size` voxels at random places: (n_draws, n_voxels) bool.

    They are contiguous, see `random_regions`, where the data set knows the coordinates of its
    voxels; of arrays that have none, any voxels or parcels are drawn together.
    """
    if dataset.coordinates is not None:
        return random_regions(dataset.coordinates, size, n_draws, rng)
    n_voxels = dataset.model_dims["n_voxels"]
    order = rng.random((n_draws, n_voxels)).argsort(axis=1)
    return order.argsort(axis=1) < size


def size_bin(size: int, n_voxels: int, ratio: float = 1.25) -> int:
    """The size whose null a region shares: a quarter apart, so that a sweep needs few nulls.

    An empty region has size 0.
    """
    if size == 0:
        return 0
    return int(min(n_voxels, round(ratio ** round(np.log(size) / np.log(ratio)))))
