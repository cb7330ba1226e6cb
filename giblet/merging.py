"""After training: Layer 5 solved again by ridge regression, and merged with ridge regression.

The field's baseline is ridge regression from the stimuli to every voxel. Where responses are linear
a network does not beat it; where they are not, it does; and as the two err independently, their
mean can be better than both. So the model that a run ends with is one of both:

1. Layer 5 of the trained network is solved again, as ridge regression of every voxel on Layer 4.
2. Banded ridge regression is fitted to the stimuli. Of both few principal components are kept.
3. The two are averaged. The network has a share as far as the validation TRs, which neither has
   seen, are evidence for it: one of each region, or a common one where that validates better.
4. With these weights, both are solved once more, on training and validation TRs.

All of it is closed-form, and none of it moves Layers 2 to 4 or 6 to 13 of the network.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from giblet.analysis.averaging import ridge_weight
from giblet.analysis.baseline import fitting_trs
from giblet.analysis.correlation import voxelwise_correlation
from giblet.analysis.kernels import Read, stimulus_blocks, stimulus_kernel, stimulus_mean
from giblet.analysis.ridge import (
    MOST,
    RidgeEncoder,
    Shrinkage,
    bands_of,
    fold_errors,
    pooled,
    principal_components,
    shrinkage_of,
    solve_dual,
)
from giblet.analysis.sources import Explained, explained_by
from giblet.data import MultimodalDataset
from giblet.data.coordinates import video_coordinates
from giblet.models import MultimodalAutoencoder
from giblet.models.autoencoder import Merged
from giblet.models.merged import LowRank, side_by_side
from giblet.regions import groups_of

READOUT_ALPHAS = np.logspace(-4, 4, 13)
RANKS = (4, 8, 16, 32, 64, 128)  # the smallest that will do is taken
LOST = 0.002  # of validation r, that it may cost a region
FEW_VOXELS = 20  # regions of fewer are judged as one
PREDICTED = 0.1  # validation r from which a region counts


@dataclass(frozen=True, eq=False)
class Parts:
    """What a merged model is made of: linear functions of stimuli and of networks' Layer 4.

    Parameters
    ----------
    ridge : {'video', 'audio' or 'text': LowRank}
    pooling : (str, str)
        Of the shrinkage of ridge regression, see `Shrinkage`.
    readouts : list of LowRank
        Layer 5 of each network, divided by their number.
    mean : (n_voxels,)
        Mean response of the TRs that they are fitted on.
    """

    ridge: dict[str, LowRank]
    pooling: tuple[str, str]
    readouts: list[LowRank]
    mean: np.ndarray

    def cut(self, n_ridge: int, n_readout: int) -> "Parts":
        """The first components of each part."""
        ridge = {name: part.cut(n_ridge) for name, part in self.ridge.items()}
        readouts = [part.cut(n_readout) for part in self.readouts]
        return Parts(ridge, self.pooling, readouts, self.mean)


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
    video = video_coordinates(whole, networks[0].span)
    read = _reader(whole, video)
    layers = [layer_4(network, whole, video) for network in networks]
    groups = groups_of(whole)
    alphas = [readout_alphas(layer, whole.fmri(), labels, groups) for layer in layers]
    train = fitting_trs(whole, "val")
    tried = fitted_parts(train, whole, read, layers, alphas, progress=progress)
    ranks, weight, explained = _validated(tried, read, layers, whole)
    del tried  # as large as the brains
    fitted = fitting_trs(whole)
    shrinkage = shrinkage_of(fitted, progress)  # of the stimuli themselves: see `_reader`
    final = fitted_parts(fitted, whole, read, layers, alphas, shrinkage, ranks)
    alone = side_by_side(networks, final.readouts, {}, final.mean)
    ridge = {name: part * weight for name, part in final.ridge.items()}
    readouts = [part * (1 - weight) for part in final.readouts]
    model = side_by_side(networks, readouts, ridge, final.mean)
    known = (final.pooling, np.stack(alphas), asdict(explained))
    model.merged = Merged(weight, *known, alone)
    return model


def fitted_parts(
    fitted: MultimodalDataset,
    whole: MultimodalDataset,
    read: Read,
    layers: Sequence[np.ndarray],
    alphas: Sequence[np.ndarray],
    shrinkage: Shrinkage | None = None,
    ranks: tuple[int, int] = (MOST, MOST),
    progress: bool = False,
) -> Parts:
    """Ridge regression on stimuli and on each Layer 4, fitted on some of the TRs of `whole`.

    Parameters
    ----------
    layers : sequence of (n_trs, n_features)
        Layer 4 of each network, of every TR of `whole`.
    alphas : sequence of (n_voxels,)
        Shrinkage of each `readout`.
    shrinkage : Shrinkage, optional
        Of ridge regression on the stimuli; by default it is chosen here.
    ranks : (int, int)
        Components to take of ridge regression from each stimulus, and of each readout, at most.
    """
    n_ridge, n_readout = ranks
    ridge = RidgeEncoder.fit(fitted, shrinkage, read=read, progress=progress)
    components = {
        name: components_of(ridge, name, weight / scale, n_ridge)
        for name, weight, scale in zip(
            ridge.bands, ridge.shrinkage.band_weights, ridge.scales, strict=True
        )
    }
    pooling, mean = ridge.shrinkage.pooling, ridge.mean
    del ridge  # its dual weights are as large as the brains
    fmri = fitted.fmri()
    fmri -= mean
    rows = np.isin(whole.tr_index, fitted.tr_index)
    share = 1 / len(layers)
    readouts = [
        readout(layer[rows], fmri, alpha, n_readout) * share
        for layer, alpha in zip(layers, alphas, strict=True)
    ]
    return Parts(components, pooling, readouts, mean)


def _ranks(
    parts: Parts,
    stimuli: Sequence[np.ndarray],
    layers: Sequence[np.ndarray],
    whole: MultimodalDataset,
) -> tuple[int, int]:
    """Components to keep of ridge regression and of the readouts, by the validation TRs."""
    val = whole.select("val")
    rows = np.isin(whole.tr_index, val.tr_index)
    ridge = [
        part.components(x[rows]) for part, x in zip(parts.ridge.values(), stimuli, strict=True)
    ]
    network = [part.components(x[rows]) for part, x in zip(parts.readouts, layers, strict=True)]
    return (
        smallest_rank(ridge, [part.rows for part in parts.ridge.values()], val),
        smallest_rank(network, [part.rows for part in parts.readouts], val),
    )


def _validated(
    parts: Parts, read: Read, layers: Sequence[np.ndarray], whole: MultimodalDataset
) -> tuple[tuple[int, int], np.ndarray, Explained]:
    """Ranks of the parts, weight of ridge regression, and what their weighted mean explains."""
    stimuli = [read(name, whole.tr_index).numpy() for name in parts.ridge]
    ranks = _ranks(parts, stimuli, layers, whole)
    parts = parts.cut(*ranks)
    ridge = _sum(list(parts.ridge.values()), stimuli)
    network = _sum(parts.readouts, layers)
    val = whole.select("val")
    rows = np.isin(whole.tr_index, val.tr_index)
    given = (ridge[rows], network[rows], val.fmri() - parts.mean)
    weight = ridge_weight(*given, groups_of(whole), val.run).astype(np.float32)
    ridge -= network  # in place: each is as large as the brains
    ridge *= weight
    ridge += network
    del network
    ridge += parts.mean
    return ranks, weight, explained_by(ridge, whole)


def _sum(parts: Sequence[LowRank], inputs: Sequence[np.ndarray]) -> np.ndarray:
    total = parts[0](inputs[0])
    for part, x in zip(parts[1:], inputs[1:], strict=True):
        total += part(x)
    return total


@torch.no_grad()
def layer_4(
    network: MultimodalAutoencoder, dataset: MultimodalDataset, video: Tensor, batch_size: int = 64
) -> np.ndarray:
    """What Layer 5 reads, of every TR: (n_trs, n_features) float64.

    Parameters
    ----------
    video : (n_trs, n_coordinates)
        As `video_coordinates` gives it.
    """
    network.eval()
    layers = network.core.encoder
    weight = next(layers.parameters())
    found = []
    for rows in torch.arange(dataset.n_trs).split(batch_size):
        trs = dataset.tr_index[rows]
        inputs = {name: dataset.stimulus(name, trs) for name in ("audio", "text")}
        inputs["video"] = video[rows]
        on_device = {name: x.to(weight.device) for name, x in inputs.items()}
        found.append(layers.features(**on_device).double().cpu())
    return torch.cat(found).numpy()


def readout(features: np.ndarray, fmri: np.ndarray, alphas: np.ndarray, n: int = MOST) -> LowRank:
    """Ridge regression of every voxel on Layer 4.

    Parameters
    ----------
    features : (n_trs, n_features), fmri : (n_trs, n_voxels)
        Of the TRs to fit on; responses less their mean.
    alphas : (n_voxels,)
        Shrinkage, relative to the mean power of the features.
    n : int
        Components, at most.
    """
    mean = features.mean(0)
    centred = features - mean
    power = _power(centred)
    kernel = centred @ centred.T / power
    one = np.ones((1, len(alphas)))
    shrinkage = Shrinkage(one, alphas, ("all", "region"))
    dual = solve_dual(kernel[None], fmri, shrinkage)
    components, rows = principal_components(kernel, dual, one[0], n)
    return LowRank(mean, centred.T @ components / power, rows)


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


def _by_region(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums over the voxels of each region and, as one more voxel of it, the mean of all voxels."""
    return pooled(values, groups) + values.mean(-1, keepdims=True)


def _power(centred: np.ndarray) -> float:
    """Mean over TRs of the sum of squares; 1 of features that are all constant."""
    return float(np.square(centred).sum(1).mean()) or 1.0


def _reader(whole: MultimodalDataset, video: Tensor) -> Read:
    """What a network's `core` reads of a stimulus, of the TRs of `whole`; read once.

    Of pictures it reads what training TRs have shown. Something of the validation TRs is missing
    there, and a shrinkage that was chosen on it would be too small or too large.
    """
    place = np.zeros(len(whole.split_labels), int)
    place[whole.tr_index] = np.arange(whole.n_trs)
    stored = {
        name: video if name == "video" else whole.stimulus(name, whole.tr_index)
        for name in bands_of(whole)
    }
    return lambda name, rows: stored[name][place[rows]]


def smallest_rank(
    components: Sequence[np.ndarray], rows: Sequence[np.ndarray], val: MultimodalDataset
) -> int:
    """Twice the components of each part that cost no region more than LOST of its validation r.

    Twice, as the loss is uncertain by more than LOST, and components are cheap.

    Regions in which nothing is predicted do not count, and those of few voxels count as one.

    Parameters
    ----------
    components : sequence of (n_trs, n), rows : sequence of (n, n_voxels)
        Of each part, the largest first.
    val : MultimodalDataset with `average=True`
        TRs that they have not seen.
    """
    fmri = val.fmri()
    groups = groups_of(val)
    sizes = np.bincount(groups)
    groups = np.where(sizes[groups] < FEW_VOXELS, len(sizes), groups)
    regions = np.unique(groups)

    def score(rank: int) -> np.ndarray:
        pairs = zip(components, rows, strict=True)
        fmri_pred = sum(given[:, :rank].astype(row.dtype) @ row[:rank] for given, row in pairs)
        r = np.nan_to_num(voxelwise_correlation(fmri_pred, fmri, val.run))
        return np.array([r[groups == region].mean() for region in regions])

    most = max(len(row) for row in rows)
    r = score(most)
    counted = r > PREDICTED if (r > PREDICTED).any() else np.ones(len(r), bool)
    ranks = (rank for rank in RANKS if rank < most)
    found = next((n for n in ranks if (score(n) >= r - LOST)[counted].all()), most)
    return min(2 * found, most)


def components_of(ridge: RidgeEncoder, name: str, weight: np.ndarray, n: int = MOST) -> LowRank:
    """The largest components of what a stimulus adds.

    Parameters
    ----------
    weight : (n_voxels,)
        Of this band in `ridge`, as `RidgeEncoder.band_duals` has it.
    n : int
        Components, at most.
    """
    kernel = stimulus_kernel(name, ridge.train, ridge.train, ridge.read)
    dual, rows = principal_components(kernel, ridge.dual, weight, n)
    mean = stimulus_mean(name, ridge.train, ridge.read)
    encode = np.zeros(())
    for block, x in stimulus_blocks(name, ridge.train, read=ridge.read):
        encode = encode + x.sub_(mean).double().numpy().T @ dual[block]
    return LowRank(mean.double().numpy(), encode, rows)
