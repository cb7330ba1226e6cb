"""What a unit listens to, and what a region answers to."""

import numpy as np
import pandas as pd
import torch

from giblet.analysis.lesions import Brain
from giblet.regions import Regions


@torch.inference_mode()
def unit_region_map(brain: Brain, regions: Regions) -> pd.DataFrame:
    """SD over time of what each region adds to each bottleneck unit.

    Returns
    -------
    DataFrame (n_units, n_regions)
        Read along a row, where a unit listens; read down a column, which units a region feeds.
    """
    columns = {}
    for name in regions.names:
        voxels = np.flatnonzero(regions.voxels(name))
        columns[name] = brain.through_layer_6(brain.fmri[:, voxels], voxels).std(0).cpu().numpy()
    return brain.dataset.marked(pd.DataFrame(columns).rename_axis("unit"))


def top_trs(brain: Brain, mask: np.ndarray, n: int = 6, apart: int = 4) -> np.ndarray:
    """Where in the film a region answers most: rows of the split, strongest first.

    Parameters
    ----------
    mask : (n_voxels,) bool
        One without voxels answers nowhere.
    n : int
        Rows to return, if the split holds as many.
    apart : int
        Smallest distance of two rows, in TRs.

    Returns
    -------
    (n_rows,) int
    """
    if not mask.any():
        return np.zeros(0, int)
    response = brain.fmri[:, np.flatnonzero(mask)].mean(1).cpu().numpy()
    trs = brain.dataset.tr_index
    chosen: list[int] = []
    for row in np.argsort(-response):
        if all(abs(trs[row] - trs[other]) >= apart for other in chosen):
            chosen.append(int(row))
        if len(chosen) == n:
            break
    return np.array(chosen)
