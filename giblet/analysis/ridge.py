"""The field's baseline at its best: banded ridge regression from stimuli to every voxel.

Cross-validation inside the training TRs chooses not only how much each voxel is shrunk and how its
bands are weighted (Dupré la Tour et al. 2022, NeuroImage 264:119728), but also over which voxels
these choices are pooled: a choice for each voxel of its own is noisy where there is little data.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from tqdm.auto import tqdm

from giblet.analysis.kernels import Read, contiguous_folds, stimulus_kernel
from giblet.data import MultimodalDataset
from giblet.data.features import STIMULI
from giblet.regions import groups_of

BLOCK_VOXELS = 4096  # in float64 at a time
ALPHAS = np.logspace(-2, 4, 9)
MOST = 256  # principal components
SMALLEST = 1e-12  # of the largest squared component: what is below is numerical noise
# Over which voxels the weights of the bands, and shrinkage, are pooled
POOLINGS = (
    ("all", "all"),
    ("all", "voxel"),
    ("region", "region"),
    ("region", "voxel"),
    ("voxel", "voxel"),
)


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """What cross-validation chose for each voxel.

    Parameters
    ----------
    band_weights : (n_bands, n_voxels)
        They sum to 1.
    alphas : (n_voxels,)
        Relative to the mean power of the weighted bands.
    pooling : (str, str)
        Over which voxels band weights and alphas were pooled: 'all', 'region' or 'voxel'.
    """

    band_weights: np.ndarray
    alphas: np.ndarray
    pooling: tuple[str, str]


@dataclass(frozen=True, eq=False)
class RidgeEncoder:
    """Banded ridge regression from the stimuli of a data set to its mean responses.

    Parameters
    ----------
    train : MultimodalDataset with `average=True`
        The TRs that it was fitted on.
    bands : tuple of str
        One a stimulus, as items of the data set give it, context included. Codes are none.
    scales : (n_bands,)
        Mean power of each band over these TRs.
    shrinkage : Shrinkage
    dual : (n_train, n_voxels) float64
        Weights of the training TRs.
    mean : (n_voxels,)
        Their mean response.
    read : callable or None
        Of the name of a stimulus and TRs of the movie, what is taken in place of the features of
        the data set: (n_trs, n_features).
    """

    train: MultimodalDataset
    bands: tuple[str, ...]
    scales: np.ndarray
    shrinkage: Shrinkage
    dual: np.ndarray
    mean: np.ndarray
    read: Read | None = None

    @classmethod
    def fit(
        cls,
        train: MultimodalDataset,
        shrinkage: Shrinkage | None = None,
        alphas: np.ndarray = ALPHAS,
        n_folds: int = 5,
        read: Read | None = None,
        progress: bool = False,
    ) -> "RidgeEncoder":
        """Fit on the TRs of a data set with `average=True`.

        Parameters
        ----------
        shrinkage : Shrinkage, optional
            Of another fit; by default it is chosen here, see `choose_shrinkage`, by
            cross-validation over contiguous folds with the gap of the splits around each.
        alphas : array
            Shrinkages tried.

        Raises
        ------
        ValueError
            If the TRs are too few for folds, see `contiguous_folds`, or no stimulus is an amount.
        """
        kernels, scales = _band_kernels(train, read)
        if shrinkage is None:
            shrinkage = _cross_validated(train, kernels, alphas, n_folds, progress)
        fmri = train.fmri()
        mean = fmri.mean(0)
        fmri -= mean
        dual = solve_dual(kernels, fmri, shrinkage)
        return cls(train, bands_of(train), scales, shrinkage, dual, mean, read)

    def shares(self, target: MultimodalDataset) -> np.ndarray:
        """What each band adds to the mean: (n_bands, n_trs, n_voxels) float32."""
        shares = np.empty((len(self.bands), target.n_trs, len(self.mean)), np.float32)
        for share, name, dual in zip(shares, self.bands, self.band_duals(), strict=True):
            share[:] = stimulus_kernel(name, target, self.train, self.read) @ dual
        return shares

    def band_duals(self) -> Iterator[np.ndarray]:
        """Of each band, what a kernel with the training TRs is multiplied with: dual, scaled."""
        for weight, scale in zip(self.shrinkage.band_weights, self.scales, strict=True):
            yield self.dual * (weight / scale)

    def predict(self, target: MultimodalDataset) -> np.ndarray:
        """Predicted response to every TR of a data set: (n_trs, n_voxels) float32."""
        kernels = [stimulus_kernel(name, target, self.train, self.read) for name in self.bands]
        total = np.tile(self.mean, (target.n_trs, 1)).astype(np.float32)
        for part in _voxel_blocks(len(self.mean)):
            weights = self.shrinkage.band_weights[:, part] / self.scales[:, None]
            for kernel, weight in zip(kernels, weights, strict=True):
                total[:, part] += kernel @ (self.dual[:, part] * weight)
        return total


def shrinkage_of(train: MultimodalDataset, progress: bool = False) -> Shrinkage:
    """What `RidgeEncoder.fit` chooses, without the fit."""
    return _cross_validated(train, _band_kernels(train)[0], progress=progress)


def _band_kernels(
    train: MultimodalDataset, read: Read | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Kernels of the bands, (n_bands, n_train, n_train), and the powers they are divided by."""
    kernels = np.stack([stimulus_kernel(name, train, train, read) for name in bands_of(train)])
    scales = np.trace(kernels, axis1=1, axis2=2) / train.n_trs
    kernels /= scales[:, None, None]
    return kernels, scales


def _cross_validated(
    train: MultimodalDataset,
    kernels: np.ndarray,
    alphas: np.ndarray = ALPHAS,
    n_folds: int = 5,
    progress: bool = False,
) -> Shrinkage:
    weights = _band_weights(len(kernels))
    folds = contiguous_folds(train, n_folds)
    tried = (folds, weights, alphas, groups_of(train))
    return choose_shrinkage(kernels, train.fmri(), *tried, progress)


def bands_of(train: MultimodalDataset) -> tuple[str, ...]:
    """The stimuli that are amounts; categories, as codes are, have no linear regression."""
    bands = tuple(
        name
        for name in STIMULI
        if name in train.present and getattr(train.features, name).ndim == 2
    )
    if not bands:
        raise ValueError(
            f"the stimuli are {', '.join(train.present)} as codes, expected one that is an amount: "
            "ridge regression has nothing to start from."
        )
    return bands


def choose_shrinkage(
    kernels: np.ndarray,
    fmri: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    weights: np.ndarray,
    alphas: np.ndarray,
    groups: np.ndarray,
    progress: bool = False,
) -> Shrinkage:
    """Choose band weights and shrinkage by cross-validation, and how far they are pooled.

    A pooling is judged on folds that its choices did not see: they are made on the other folds.

    Parameters
    ----------
    kernels : (n_bands, n_train, n_train)
    fmri : (n_train, n_voxels)
    folds : sequence of (rows to fit on, rows held out)
    weights : (n_weights, n_bands), alphas : (n_alphas,)
        What is tried.
    groups : (n_voxels,) int
        Region of each voxel.
    """
    errors = fold_errors(kernels, fmri, folds, weights, alphas, progress)
    total = errors.sum(1)
    labels = {"all": np.zeros(len(groups), int), "region": groups, "voxel": None}
    voxels = np.arange(len(groups))

    def missed(pooling: tuple[str, str]) -> float:
        over = [labels[name] for name in pooling]
        return sum(
            errors[weight, fold, alpha, voxels].sum(dtype=np.float64)
            for fold in range(len(folds))
            for weight, alpha in [_choice(total - errors[:, fold], *over)]
        )

    pooling = min(POOLINGS, key=missed) if len(folds) > 1 else POOLINGS[0]
    weight, alpha = _choice(total, *(labels[name] for name in pooling))
    return Shrinkage(weights[weight].T, alphas[alpha], pooling)


def _choice(
    errors: np.ndarray, over_weights: np.ndarray | None, over_alphas: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the best weights and alphas of each voxel: twice (n_voxels,).

    `errors` is (n_weights, n_alphas, n_voxels).
    """
    alpha = pooled(errors, over_alphas).argmin(1)
    reached = np.take_along_axis(errors, alpha[:, None], 1)[:, 0]
    weight = pooled(reached, over_weights).argmin(0)
    return weight, alpha[weight, np.arange(errors.shape[-1])]


def pooled(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Sums over the voxels of each group, given to each of them: (..., n_voxels), or as it is."""
    if groups is None:
        return values
    member = np.eye(groups.max() + 1, dtype=values.dtype)[groups]
    return (values @ member)[..., groups]


def _band_weights(n_bands: int) -> np.ndarray:
    """Equal weights, and all that are quarters: (n_weights, n_bands).

    A lattice has no luck: draws of a Dirichlet distribution, as himalaya takes them, gave .27 to
    .31 on real regions, by their seed.
    """
    quarters = [np.array(x) for x in product(range(5), repeat=n_bands) if sum(x) == 4]
    return np.unique([np.full(n_bands, 1 / n_bands), *(x / 4 for x in quarters)], axis=0)


def fold_errors(
    kernels: np.ndarray,
    fmri: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    weights: np.ndarray,
    alphas: np.ndarray,
    progress: bool = False,
) -> np.ndarray:
    """Squared errors over held-out rows: (n_weights, n_folds, n_alphas, n_voxels) float32.

    Parameters as of `choose_shrinkage`.
    """
    n_voxels = fmri.shape[1]
    errors = np.empty((len(weights), len(folds), len(alphas), n_voxels), np.float32)
    blocks = _voxel_blocks(n_voxels)
    tried = list(product(enumerate(weights), enumerate(folds)))
    bar = tqdm(tried, "ridge regression", unit="fold", disable=not progress)
    for (row, weight), (column, (fitted, held_out)) in bar:
        kernel = np.tensordot(weight, kernels, 1)
        own = kernel[np.ix_(fitted, fitted)]
        power, directions = np.linalg.eigh(_centred(own, own))
        across = _centred(kernel[np.ix_(held_out, fitted)], own) @ directions
        shrunk = [(across / (power.clip(min=0) + x)).astype(np.float32) for x in alphas]
        onto = directions.T.astype(np.float32)
        for block in blocks:
            given = fmri[fitted, block]
            mean = given.mean(0)
            along = onto @ (given - mean)
            beyond = fmri[held_out, block] - mean
            for index, solved in enumerate(shrunk):
                errors[row, column, index, block] = np.square(beyond - solved @ along).sum(0)
    return errors


def _voxel_blocks(n_voxels: int) -> list[slice]:
    return [slice(start, start + BLOCK_VOXELS) for start in range(0, n_voxels, BLOCK_VOXELS)]


def _centred(kernel: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The kernel of features less their mean over the rows that `own` is the kernel of."""
    return kernel - kernel.mean(1, keepdims=True) - own.mean(0) + own.mean()


def solve_dual(kernels: np.ndarray, fmri: np.ndarray, shrinkage: Shrinkage) -> np.ndarray:
    """Weights of the training TRs: (n_train, n_voxels) float64.

    Parameters
    ----------
    kernels : (n_bands, n_train, n_train), fmri : (n_train, n_voxels)
        Both centred by the training TRs.
    """
    dual = np.empty(fmri.shape)
    weights, index = np.unique(shrinkage.band_weights, axis=1, return_inverse=True)
    for number, weight in enumerate(weights.T):
        power, directions = np.linalg.eigh(np.tensordot(weight, kernels, 1))
        own = np.flatnonzero(index == number)
        for voxels in np.split(own, range(BLOCK_VOXELS, len(own), BLOCK_VOXELS)):
            along = directions.T @ fmri[:, voxels].astype(np.float64)
            shrunk = along / (power.clip(min=0)[:, None] + shrinkage.alphas[voxels])
            dual[:, voxels] = directions @ shrunk
    return dual


def principal_components(
    kernel: np.ndarray, dual: np.ndarray, weight: np.ndarray, n: int = MOST
) -> tuple[np.ndarray, np.ndarray]:
    """The `n` largest components of `kernel @ (dual * weight)`, in blocks of voxels.

    Parameters
    ----------
    kernel : (n_train, n_train), dual : (n_train, n_voxels)
    weight : (n_voxels,)

    Returns
    -------
    dual : (n_train, n) float64
        A kernel with the training TRs times it is the components, of variance 1 over these TRs.
    rows : (n, n_voxels) float32
        What each adds to the voxels.
    """
    n_train, n_voxels = dual.shape
    blocks = _voxel_blocks(n_voxels)
    products = np.zeros((n_train, n_train))
    for block in blocks:
        given = kernel @ (dual[:, block] * weight[block])
        products += given @ given.T
    power, directions = np.linalg.eigh(products)
    kept = np.flatnonzero(power > power[-1] * SMALLEST)[::-1][:n]
    directions = directions[:, kept]
    onto = directions.T @ kernel / np.sqrt(n_train)
    components = np.zeros((n_train, len(kept)))
    rows = np.empty((len(kept), n_voxels), np.float32)
    for block in blocks:
        weighted = dual[:, block] * weight[block]
        row = onto @ weighted
        components += weighted @ row.T
        rows[:, block] = row
    return components / (power[kept] / n_train), rows
