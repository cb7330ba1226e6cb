"""After training: Layer 5 solved again by ridge regression, and merged with ridge regression.

The field's baseline is ridge regression from the stimuli to every voxel. Where responses are linear
a network does not beat it; where they are not, it does; and as the two err independently, their
mean can be better than both. So the model that a run ends with is one of both:

1. Layer 5 of the trained network is solved again, as ridge regression of every voxel on Layer 4.
2. Banded ridge regression is fitted to the stimuli, and cut to few components.
3. The two are averaged. The weight is that of the smallest squared error on the validation TRs,
   which neither has seen: one a region, which leans on all voxels where it has few of its own.
4. With what is chosen so, both are solved once more, on training and validation TRs.

All of it is closed-form, and none of it moves Layers 2 to 4 or 6 to 13 of the network.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from giblet.analysis.baseline import fitting_trs
from giblet.analysis.correlation import voxelwise_correlation
from giblet.analysis.kernels import Read, stimulus_blocks, stimulus_kernel, stimulus_mean
from giblet.analysis.ridge import RidgeEncoder, Shrinkage, bands_of, fold_errors, pooled, solve_dual
from giblet.analysis.sources import Explained, explained_by
from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder
from giblet.models.autoencoder import Merged
from giblet.models.merged import LowRank, side_by_side
from giblet.regions import groups_of

READOUT_ALPHAS = np.logspace(-4, 4, 13)
RANKS = (4, 8, 16, 32, 64, 128, 256, 512)  # of ridge regression: the smallest that will do is taken
SMALLEST = 1e-12  # of the largest squared component: what is below is numerical noise
LOST = 0.002  # of validation r, that it may cost a region
FEW_VOXELS = 20  # regions of fewer are judged as one
PREDICTED = 0.1  # validation r from which a region counts


def merge(
    networks: Sequence[MultimodalAutoencoder], dataset: MultimodalDataset, progress: bool = False
) -> MultimodalAutoencoder:
    """One model of trained networks and ridge regression; the networks stay as they are.

    Parameters
    ----------
    networks : sequence of MultimodalAutoencoder
        Trained on the training TRs of `dataset`, of one configuration.
    dataset : MultimodalDataset
        Of any split.

    Returns
    -------
    MultimodalAutoencoder
        For evaluation; its `merged` says what it is made of. Layer 5 has seen the validation TRs.

    Raises
    ------
    ValueError
        If the data set has no validation TRs, or too few training TRs for ridge regression.
    """
    whole = dataset.select("all", average=True)
    labels = whole.split_labels[whole.tr_index]
    if "val" not in labels:
        raise ValueError(
            "the data set has no validation TRs to choose weights on, expected some: give "
            "`fractions` with a share for validation."
        )
    fmri = whole.fmri()
    groups = groups_of(whole)
    features = [layer_4(network, whole) for network in networks]
    alphas = [readout_alphas(layer, fmri, labels, groups) for layer in features]

    def readouts(rows: np.ndarray) -> list[LowRank]:
        solved = zip(features, alphas, strict=True)
        return [readout(layer, fmri, rows, alpha) * (1 / len(networks)) for layer, alpha in solved]

    ridge = RidgeEncoder.fit(
        fitting_trs(whole, "val"), read=_reader(networks[0], whole), progress=progress
    )
    first = zip(readouts(labels == "train"), features, strict=True)
    network_pred = ridge.mean + sum(solved(layer) for solved, layer in first)
    weight, explained = _validated(ridge.predict(whole), network_pred, whole, groups)
    parts = (weight, ridge.shrinkage.pooling, np.stack(alphas), asdict(explained))
    components, mean = _refitted(ridge, whole)
    final = readouts(np.isin(labels, ("train", "val")))
    alone = side_by_side(networks, final, {}, mean)
    weighted = {name: one * weight for name, one in components.items()}
    model = side_by_side(networks, [one * (1 - weight) for one in final], weighted, mean)
    model.merged = Merged(*parts, alone)
    return model


def _validated(
    ridge_pred: np.ndarray, network_pred: np.ndarray, whole: MultimodalDataset, groups: np.ndarray
) -> tuple[np.ndarray, Explained]:
    """Weight of ridge regression, and what the weighted mean explains of the validation TRs."""
    val = whole.split_labels[whole.tr_index] == "val"
    fmri = whole.fmri()
    weight = ridge_weight(ridge_pred[val], network_pred[val], fmri[val], groups)
    weighted = network_pred + weight * (ridge_pred - network_pred)
    return weight, explained_by(weighted.astype(np.float32), whole)


def _refitted(
    ridge: RidgeEncoder, whole: MultimodalDataset
) -> tuple[dict[str, LowRank], np.ndarray]:
    """Components of ridge regression on training and validation TRs, and their mean response."""
    n_components = smallest_rank(ridge, whole.select("val"))
    again = RidgeEncoder.fit(fitting_trs(whole), ridge.shrinkage, read=ridge.read)
    return {name: components_of(again, name, n_components) for name in again.bands}, again.mean


@torch.no_grad()
def layer_4(
    network: MultimodalAutoencoder, dataset: MultimodalDataset, batch_size: int = 64
) -> np.ndarray:
    """What Layer 5 reads, of every TR: (n_trs, n_features) float64."""
    network.eval()
    device = next(network.parameters()).device
    found = []
    for rows in torch.arange(dataset.n_trs).split(batch_size):
        batch: dict[str, Any] = dataset[rows.tolist()]
        inputs = {name: batch[name].to(device) for name in ("video", "audio", "text")}
        found.append(network.encoder.features(**inputs).double().cpu())
    return torch.cat(found).numpy()


def readout(
    features: np.ndarray, fmri: np.ndarray, rows: np.ndarray, alphas: np.ndarray
) -> LowRank:
    """Ridge regression of every voxel on Layer 4, beyond the mean response.

    Parameters
    ----------
    features : (n_trs, n_features), fmri : (n_trs, n_voxels)
    rows : (n_trs,) bool
        TRs to fit on.
    alphas : (n_voxels,)
        Shrinkage, relative to the mean power of the features.
    """
    mean = features[rows].mean(0)
    centred = features[rows] - mean
    power = _power(centred)
    target = fmri[rows] - fmri[rows].mean(0)
    shrinkage = Shrinkage(np.ones((1, len(alphas))), alphas, ("all", "region"))
    dual = solve_dual((centred @ centred.T / power)[None], target, shrinkage)
    return LowRank(mean, centred.T / power, dual)


def readout_alphas(
    features: np.ndarray, fmri: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """The shrinkage of each region's `readout` that validates best: (n_voxels,)."""
    given = np.flatnonzero(np.isin(labels, ("train", "val")))
    is_train = labels[given] == "train"
    fold = (np.flatnonzero(is_train), np.flatnonzero(~is_train))
    centred = features[given] - features[given][is_train].mean(0)
    kernel = centred @ centred.T / _power(centred[is_train])
    one = np.ones((1, 1))
    errors = fold_errors(kernel[None], fmri[given], [fold], one, READOUT_ALPHAS)[0, 0]
    return READOUT_ALPHAS[_by_region(errors, groups).argmin(0)]


def ridge_weight(
    ridge: np.ndarray, network: np.ndarray, fmri: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """Weight from 0 to 1 of ridge regression in the mean of smallest squared error: (n_voxels,).

    Parameters
    ----------
    ridge, network, fmri : (n_trs, n_voxels)
        Two predictions of held-out TRs, and the responses.
    groups : (n_voxels,) int
        Region of each voxel.
    """
    apart = ridge - network
    along = _by_region((apart * (fmri - network)).sum(0, dtype=np.float64), groups)
    power = _by_region(np.square(apart).sum(0, dtype=np.float64), groups)
    return np.clip(along / np.where(power > 0, power, 1), 0, 1)


def _by_region(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums over the voxels of each region and, as one more voxel of it, the mean of all voxels."""
    return pooled(values, groups) + values.mean(-1, keepdims=True)


def _power(centred: np.ndarray) -> float:
    """Mean over TRs of the sum of squares; 1 of features that are all constant."""
    return float(np.square(centred).sum(1).mean()) or 1.0


@torch.no_grad()
def _reader(network: MultimodalAutoencoder, whole: MultimodalDataset) -> Read:
    """What the network's `core` reads of a stimulus, of the TRs of `whole`; read once."""
    device = next(network.parameters()).device
    place = np.zeros(len(whole.split_labels), int)
    place[whole.tr_index] = np.arange(whole.n_trs)
    stored = {}
    for name in bands_of(whole):
        blocks = (x for _, x in stimulus_blocks(name, whole))
        if name == "video":
            blocks = (network.video_basis.coordinates(x.to(device)).cpu() for x in blocks)
        stored[name] = torch.cat(list(blocks))
    return lambda name, rows: stored[name][place[rows]]


def smallest_rank(ridge: RidgeEncoder, val: MultimodalDataset) -> int:
    """Components of each stimulus that cost no region more than LOST of its validation r.

    Regions in which ridge regression predicts nothing do not count, and those of few voxels count
    as one.

    Parameters
    ----------
    val : MultimodalDataset with `average=True`
        TRs that ridge regression has not seen.
    """
    fmri = val.fmri()
    kernels = [stimulus_kernel(name, val, ridge.train, ridge.read) for name in ridge.bands]
    factors = [_factors(ridge, name) for name in ridge.bands]
    groups = groups_of(val)
    sizes = np.bincount(groups)
    groups = np.where(sizes[groups] < FEW_VOXELS, len(sizes), groups)
    regions = np.unique(groups)

    def score(rank: int) -> np.ndarray:
        pairs = zip(kernels, factors, strict=True)
        fmri_pred = sum((kernel @ dual[:, :rank]) @ rows[:rank] for kernel, (dual, rows) in pairs)
        r = np.nan_to_num(voxelwise_correlation(fmri_pred, fmri, val.run))
        return np.array([r[groups == region].mean() for region in regions])

    most = max(len(rows) for _, rows in factors)
    r = score(most)
    counted = r > PREDICTED if (r > PREDICTED).any() else np.ones(len(r), bool)
    ranks = (rank for rank in RANKS if rank < most)
    return next((n for n in ranks if (score(n) >= r - LOST)[counted].all()), most)


def _factors(ridge: RidgeEncoder, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Singular components of what a stimulus adds on the TRs of the fit, the largest first.

    Returns
    -------
    dual : (n_train, n)
        A kernel with the TRs of the fit times it is the components, of variance 1 over these TRs.
    rows : (n, n_voxels)
        What each adds to the voxels.
    """
    dual = dict(zip(ridge.bands, ridge.band_duals(), strict=True))[name]
    kernel = stimulus_kernel(name, ridge.train, ridge.train, ridge.read)
    shares = kernel @ dual
    power, directions = np.linalg.eigh(shares @ shares.T)
    kept = np.flatnonzero(power > power[-1] * SMALLEST)[::-1]
    rows = directions[:, kept].T @ shares / np.sqrt(len(kernel))
    return dual @ (rows.T / np.square(rows).sum(1)), rows


def components_of(ridge: RidgeEncoder, name: str, n: int) -> LowRank:
    """The largest `n` components of what a stimulus adds, or fewer."""
    dual, rows = _factors(ridge, name)
    mean = stimulus_mean(name, ridge.train, ridge.read)
    encode = np.zeros(())
    for block, x in stimulus_blocks(name, ridge.train, read=ridge.read):
        encode = encode + x.sub_(mean).double().numpy().T @ dual[block, :n]
    return LowRank(mean.double().numpy(), encode, rows[:n])
