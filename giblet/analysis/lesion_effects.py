"""What a lesion costs beside lesions of the same size at random places."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from giblet.analysis.lesions import LesionScores
from giblet.analysis.statistics import p_values


@dataclass(frozen=True)
class LesionEffect:
    """What one lesion costs in one modality: score of the intact brain minus score of the lesioned one.

    Parameters
    ----------
    intact, lesioned : (n_trs,)
        Scores, see `LesionScores`.
    null : (n_permute,)
        Mean cost of random lesions of the same size.
    mode : 'without' or 'only'
        What a lesion shows: that it costs more than random ones, or, where only a region is left, that it costs less.
    """

    intact: np.ndarray
    lesioned: np.ndarray
    null: np.ndarray
    mode: str = "without"

    @property
    def effect(self) -> float:
        """Mean over TRs; positive is harm."""
        return float(np.nanmean(self.intact - self.lesioned))

    @property
    def z(self) -> float:
        """In SDs of the null, from its mean."""
        return float((self.effect - self.null.mean()) / self.null.std())

    @property
    def p(self) -> float:
        """One-sided: share of the null, (b + 1) / (n + 1), that costs at least as much ('only': at most as much)."""
        sign = 1 if self.mode == "without" else -1
        return float(p_values(np.array(sign * self.effect), sign * self.null))


def random_regions(coordinates: np.ndarray, size: int, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Contiguous regions at random places: the `size` voxels nearest to a random one, (n_draws, n_voxels) bool.

    Parameters
    ----------
    coordinates : (n_voxels, 3)
        In mm.
    """
    _, nearest = cKDTree(coordinates).query(coordinates[rng.integers(len(coordinates), size=n_draws)], k=size)
    regions = np.zeros((n_draws, len(coordinates)), bool)
    np.put_along_axis(regions, nearest.reshape(n_draws, size), True, axis=1)
    return regions


def _costs(intact: dict, lesioned: dict) -> dict[str, np.ndarray]:
    """Mean cost of each lesion: {name: (n_lesions,)}."""
    return {name: np.nanmean(intact[name] - lesioned[name], axis=1) for name in intact}


def region_null(
    scores: LesionScores, coordinates: np.ndarray, size: int, n_permute: int = 199, random_state: int = 0, **lesion
) -> dict[str, np.ndarray]:
    """Costs of random contiguous regions of `size` voxels: {name: (n_permute,)}."""
    regions = random_regions(coordinates, size, n_permute, np.random.default_rng(random_state))
    return _costs(scores.intact, scores.of_regions(regions, **lesion))


def unit_null(
    scores: LesionScores, size: int, n_permute: int = 199, random_state: int = 0, **lesion
) -> dict[str, np.ndarray]:
    """Costs of `size` units at random: {name: (n_permute,)}."""
    rng, n_units = np.random.default_rng(random_state), scores.bottleneck.shape[1]
    groups = [rng.choice(n_units, size, replace=False) for _ in range(n_permute)]
    return _costs(scores.intact, scores.of_units(groups, **lesion))


def lesion_effects(
    scores: LesionScores, lesioned: dict[str, np.ndarray], null: dict[str, np.ndarray], mode: str = "without"
) -> dict[str, LesionEffect]:
    """Effects of one lesion by modality, from its scores {name: (1, n_trs)} and its null {name: (n_permute,)}."""
    return {name: LesionEffect(scores.intact[name][0], lesioned[name][0], null[name], mode) for name in scores.names}


def size_bin(size: int, n_voxels: int, ratio: float = 1.25) -> int:
    """The size whose null a region shares: sizes a quarter apart, so that a sweep needs few nulls."""
    return int(min(n_voxels, round(ratio ** round(np.log(max(size, 1)) / np.log(ratio)))))
