"""The field's baseline for decoding: ridge regression from the measured voxels to the movie.

By the package himalaya (Dupré la Tour et al. 2022, NeuroImage 264:119728).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from himalaya.kernel_ridge import KernelRidgeCV
from himalaya.scoring import l2_neg_loss
from torch import Tensor

from giblet.analysis.kernels import (
    contiguous_folds,
    stimulus_blocks,
    stimulus_kernel,
    stimulus_mean,
)
from giblet.analysis.ridge import ALPHAS
from giblet.analysis.sources import typical
from giblet.data import MultimodalDataset
from giblet.data.features import STIMULI

BATCH_TRS = 128  # TRs that are decoded at a time: all of the training movie is read for each batch
BLOCK_VOXELS = 4096  # in float64 at a time


@dataclass(frozen=True, eq=False)
class RidgeDecoder:
    """Ridge regression from the group's measured voxels to one modality, fitted on training TRs.

    What it decodes is the training mean plus a weighted sum of what training TRs show beyond it, so
    that nothing of it is as wide as pictures are.

    Parameters
    ----------
    name : 'video', 'audio' or 'text'
    train : MultimodalDataset with `average=True`
        The training TRs that it was fitted on, without context.
    alpha : float
        Shrinkage, relative to the mean power of the training responses.
    dual : (n_train, n_train) float64
        Inverse of the kernel of the training responses with `alpha` on its diagonal.
    """

    name: str
    train: MultimodalDataset
    alpha: float
    dual: np.ndarray

    @classmethod
    def fit(
        cls,
        dataset: MultimodalDataset,
        name: str,
        alphas: np.ndarray = ALPHAS,
        n_folds: int = 5,
    ) -> "RidgeDecoder":
        """Fit on the training TRs; for text, on those that have an annotation.

        The shrinkage is that of the lowest squared error, over all features together, in
        cross-validation over contiguous folds with the gap of the splits around each.

        Parameters
        ----------
        dataset : MultimodalDataset
            Of any split.
        alphas : array
            Shrinkages tried.

        Raises
        ------
        ValueError
            If the training TRs are too few for folds, see `contiguous_folds`.
        """
        train = _shown(dataset.select("train", average=True), name)
        fmri = train.fmri()
        kernel = _products(fmri - fmri.mean(0), fmri - fmri.mean(0))
        scale = np.trace(kernel) / len(kernel)
        power, directions = np.linalg.eigh(stimulus_kernel(name, train, train))
        targets = directions * np.sqrt(power.clip(min=0))  # as far from each other as the stimuli
        folds = contiguous_folds(train, n_folds)
        search = KernelRidgeCV(
            alphas,
            kernel="precomputed",
            cv=folds,
            solver_params={"local_alpha": False, "score_func": _negative_error},
        )
        alpha = float(search.fit(kernel / scale, targets).best_alphas_[0])
        dual = np.linalg.inv(kernel + alpha * scale * np.eye(len(kernel)))
        return cls(name, train, alpha, dual)

    def weights(self, voxels: np.ndarray) -> np.ndarray:
        """What voxels (indices) add, as weights of training TRs: (n, n_train) float64."""
        responses = self.train.fmri()
        return (responses - responses.mean(0))[:, voxels].T.astype(np.float64) @ self.dual

    def decode(self, fmri: np.ndarray) -> Iterator[Tensor]:
        """Decode (n_trs, n_voxels) in batches of TRs: (n_batch, n_features), without context.

        The weight of a voxel in every feature is what decoding 1 in this voxel and 0 in all others
        adds to decoding 0 in all.
        """
        own = self.train.fmri()
        mean = own.mean(0)
        mean_shown = stimulus_mean(self.name, self.train)
        weights = _products(fmri - mean, own - mean) @ self.dual
        for batch in torch.from_numpy(weights.astype(np.float32)).split(BATCH_TRS):
            decoded = (1 - batch.sum(1, keepdim=True)) * mean_shown
            for rows, shown in stimulus_blocks(self.name, self.train):
                decoded.addmm_(batch[:, rows], shown)
            yield decoded


_kept: dict[tuple[str, str], RidgeDecoder] = {}


def ridge_decoder(dataset: MultimodalDataset, name: str) -> RidgeDecoder:
    """The `RidgeDecoder` of 'video', 'audio' or 'text', fitted once per data set and kept.

    Another data set takes its place.

    Parameters
    ----------
    dataset : MultimodalDataset
        Of any split.
    """
    key = (dataset.provenance["hash"], name)
    if key not in _kept:
        if len(_kept) == len(STIMULI):
            _kept.clear()
        _kept[key] = RidgeDecoder.fit(dataset, name)
    return _kept[key]


def ridge_batches(dataset: MultimodalDataset, fmri: np.ndarray) -> Iterator[dict[str, Tensor]]:
    """Decode (n_trs, n_voxels) of brain in batches of TRs, without context.

    Yields `{'video', 'audio', 'text'}`. Codes have no ridge regression: of them, the commonest of
    the training TRs.
    """
    amounts = [name for name in dataset.present if getattr(dataset.features, name).ndim == 2]
    decoded = {name: ridge_decoder(dataset, name).decode(fmri) for name in amounts}
    others = {name: typical(dataset, name) for name in STIMULI if name not in amounts}
    for start in range(0, len(fmri), BATCH_TRS):
        n_batch = len(fmri[start : start + BATCH_TRS])
        batch = {name: next(values) for name, values in decoded.items()}
        yield batch | {name: one.expand(n_batch, *one.shape) for name, one in others.items()}


def _negative_error(target: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Negative squared error, summed over TRs: folds weigh as many as they hold."""
    return l2_neg_loss(target, decoded) * len(target)


def _shown(train: MultimodalDataset, name: str) -> MultimodalDataset:
    """Training TRs without context; of text those with an annotation. Changes `train`."""
    train.offsets = np.zeros(1, int)
    if name == "text":
        annotated = np.any(train.features.text[train.tr_index] != 0, axis=1)
        train.tr_index = train.tr_index[annotated]
        train.run = train.run[annotated]
    return train


def _products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`left @ right.T` in float64, in blocks of voxels."""
    total = np.zeros((len(left), len(right)))
    for start in range(0, left.shape[1], BLOCK_VOXELS):
        part = slice(start, start + BLOCK_VOXELS)
        total += left[:, part].astype(np.float64) @ right[:, part].astype(np.float64).T
    return total
