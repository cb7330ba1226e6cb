"""What ridge regression is solved from: products of stimuli between TRs, and folds of TRs."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from giblet.data import MultimodalDataset

BLOCK_ROWS = 64  # TRs of features in memory at a time
Read = Callable[[str, np.ndarray], Tensor]


def stimulus_kernel(
    name: str,
    left: MultimodalDataset,
    train: MultimodalDataset,
    read: Read | None = None,
) -> np.ndarray:
    """Products of features centred by the training TRs: (n_left, n_train) float64.

    They are computed in blocks of TRs.

    Parameters
    ----------
    read : callable
        What is taken in place of the features, see `RidgeEncoder`.
    """
    mean = stimulus_mean(name, train, read)
    kernel = np.empty((left.n_trs, train.n_trs))
    for rows, x in stimulus_blocks(name, left, read=read):
        x.sub_(mean)
        for columns, y in stimulus_blocks(name, train, rows.start if left is train else 0, read):
            kernel[rows, columns] = torch.mm(x, y.sub_(mean).T).numpy()
            if left is train:
                kernel[columns, rows] = kernel[rows, columns].T
    return kernel


def stimulus_mean(name: str, dataset: MultimodalDataset, read: Read | None = None) -> Tensor:
    """Mean of a stimulus over the TRs of a data set, context included: (n_features,)."""
    total = torch.zeros(())
    for _, x in stimulus_blocks(name, dataset, read=read):
        total = total + x.double().sum(0)
    return total.div(dataset.n_trs).float()


def stimulus_blocks(
    name: str, dataset: MultimodalDataset, first: int = 0, read: Read | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """A stimulus from the row `first` of a data set on, in blocks of TRs with their rows.

    Values are a copy, with context.
    """
    for start in range(first, dataset.n_trs, BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        yield rows, (read or dataset.stimulus)(name, dataset.tr_index[rows])


def contiguous_folds(train: MultimodalDataset, n_folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Contiguous folds, each with the training TRs that are far enough from it.

    Those are in another run, or farther away than the gap. Folds without any are left out.

    Raises
    ------
    ValueError
        Where no fold has any.
    """
    trs = train.tr_index
    run = train.run
    folds = []
    for held_out in np.array_split(np.arange(train.n_trs), n_folds):
        near = np.zeros(train.n_trs, bool)
        near[held_out] = True
        for index in np.unique(run[held_out]):
            own = trs[held_out][run[held_out] == index]
            near |= (run == index) & (np.abs(trs[:, None] - own).min(1) <= train.gap)
        if not near.all():
            folds.append((np.flatnonzero(~near), held_out))
    if not folds:
        raise ValueError(
            f"ridge regression has {train.n_trs} training TRs to choose its shrinkage in, expected "
            f"more than one gap of {train.gap} TRs between folds: take longer runs, or leave the "
            "comparison out."
        )
    return folds
