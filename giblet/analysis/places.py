"""Where is this? Moments named by the mean picture of each place."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from giblet.analysis.bootstrap import bootstrap_means, confidence_interval, default_block_trs
from giblet.analysis.kernels import stimulus_blocks
from giblet.data import MultimodalDataset
from giblet.data.provenance import check_held_out


@dataclass(frozen=True)
class Naming:
    """Places of held-out TRs, named from their reconstructions.

    Parameters
    ----------
    named, places : (n_trs,)
        Named, and true.
    run : (n_trs,) int
    n_places : int
        Places that could be named.
    """

    named: np.ndarray
    places: np.ndarray
    run: np.ndarray
    n_places: int

    @property
    def accuracy(self) -> float:
        """Share of the TRs that are named rightly."""
        return float((self.named == self.places).mean())

    @property
    def chance(self) -> float:
        """Of naming any place."""
        return 1 / self.n_places

    def interval(self, n_boot: int = 1000, random_state: int = 0) -> tuple[float, float]:
        """95 % interval of the accuracy over resampled blocks of TRs, see `default_block_trs`."""
        block_trs = default_block_trs(self.run)
        right = (self.named == self.places).astype(float)
        draws = bootstrap_means(right, self.run, block_trs, n_boot, random_state)
        low, high = confidence_interval(right.mean(), draws, len(right) / block_trs)
        return float(low), float(high)


def name_places(video: Tensor, places: Sequence, dataset: MultimodalDataset) -> Naming:
    """Name the place of each held-out TR: the one whose mean training picture is nearest.

    Nearest is the largest cosine of what distinguishes the two from the mean of all training TRs,
    as in identification: a faint picture is not thereby nearer to an average one.

    Parameters
    ----------
    video : (n_trs, video_dim)
        Reconstructions of the TRs of `dataset`, without context.
    places : (n_all_trs,)
        Place of every TR of the movie, over all runs, as `dataset.truth['place']`.
    dataset : MultimodalDataset with `average=True`
        Held-out TRs.

    Raises
    ------
    ValueError
        If `places` has another length than the movie, or the data have no film.
    """
    check_held_out(dataset)
    if "video" not in dataset.present:
        raise ValueError("the data have no pictures to name places by: take data with a film.")
    of_trs = np.asarray(places)
    n_trs = len(dataset.split_labels)
    if len(of_trs) != n_trs:
        raise ValueError(f"places has {len(of_trs)} values, expected one for each of {n_trs} TRs.")
    train = dataset.select("train", average=True)
    known = np.unique(of_trs[train.tr_index])
    shown = torch.zeros(len(known), video.shape[1])
    for rows, block in stimulus_blocks("video", train):
        own = dataset.without_context("video", block)
        member = of_trs[train.tr_index[rows]] == known[:, None]
        shown += torch.from_numpy(member).float() @ own
    counts = np.array([(of_trs[train.tr_index] == place).sum() for place in known])
    shown /= torch.from_numpy(counts).float()[:, None]
    mean = dataset.without_context("video", dataset.train_mean("video")[None])
    beyond = torch.nn.functional.normalize(shown - mean)
    nearest = ((video - mean) @ beyond.T).argmax(1).numpy()
    return Naming(known[nearest], of_trs[dataset.tr_index], dataset.run, len(known))
