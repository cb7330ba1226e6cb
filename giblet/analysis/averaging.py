"""How much of ridge regression, and how much of a network, in the mean of their predictions."""

from collections.abc import Sequence

import numpy as np

from giblet.analysis.bootstrap import default_block_trs

PRICE = 2  # of a share of the network, in variances
CERTAIN = 2  # standard errors


def ridge_weight(
    ridge: np.ndarray, network: np.ndarray, fmri: np.ndarray, groups: np.ndarray, run: np.ndarray
) -> np.ndarray:
    """Weight from 0 to 1 of ridge regression in a mean of the two predictions: (n_voxels,).

    The network has a share as far as held-out TRs are evidence for it, see `network_share`. Each
    region has its own, unless a common one errs less, by more than two standard errors, on blocks
    of film that the shares were not taken from.

    Parameters
    ----------
    ridge, network, fmri : (n_trs, n_voxels)
        Two predictions of held-out TRs, and the responses.
    groups : (n_voxels,) int
        Region of each voxel.
    run : (n_trs,)
    """
    n_blocks = max(3, len(run) // default_block_trs(run))
    apart = network - ridge
    blocks = np.array_split(np.arange(len(run)), n_blocks)
    products = apart * (fmri - ridge)
    along = _sums([products[rows] for rows in blocks], groups)
    power = _sums([np.square(apart[rows]) for rows in blocks], groups)
    regions = np.arange(along.shape[1])

    def shares(rows: np.ndarray, pooling: np.ndarray) -> np.ndarray:
        onto = np.eye(pooling.max() + 1)[pooling]
        return network_share(along[rows] @ onto, power[rows] @ onto)[pooling]

    def missed(pooling: np.ndarray) -> np.ndarray:
        left_out = [shares(np.arange(n_blocks) != block, pooling) for block in range(n_blocks)]
        share = np.stack(left_out)
        return (share**2 * power - 2 * share * along).sum(1)

    gain = missed(regions) - missed(np.zeros_like(regions))  # of a common share, in each block
    is_common = gain.mean() >= CERTAIN * gain.std(ddof=1) / np.sqrt(n_blocks)
    best = np.zeros_like(regions) if is_common else regions
    return 1 - shares(np.ones(n_blocks, bool), best)[groups]


def network_share(along: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Share from 0 to 1 of a network in a mean with ridge regression: (n,).

    That of the smallest squared error, `along / power`, is uncertain; what it loses for that is the
    price of a parameter in Akaike's criterion: a share within sqrt(2) standard errors of 0 is none.
    The standard error is that of the jackknife over blocks of film.

    Parameters
    ----------
    along, power : (n_blocks, n)
        Of the difference of the two predictions, its product with what ridge regression leaves
        over, and its square; sums over the TRs of each block.
    """
    n_blocks = len(along)
    share = _ratio(along.sum(0), power.sum(0))
    left_out = _ratio(along.sum(0) - along, power.sum(0) - power)
    variance = (n_blocks - 1) * left_out.var(0)
    certain = 1 - PRICE * _ratio(variance, np.square(share))
    return np.clip(share * np.clip(certain, 0, 1), 0, 1)


def _sums(blocks: Sequence[np.ndarray], groups: np.ndarray) -> np.ndarray:
    """Sums over the TRs of each block and the voxels of each region: (n_blocks, n_regions)."""
    sums = [block.sum(0, dtype=np.float64) for block in blocks]
    return np.stack([np.bincount(groups, by_voxel) for by_voxel in sums])


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """0 where nothing is below."""
    return np.divide(above, below, out=np.zeros(above.shape), where=below > 0)
