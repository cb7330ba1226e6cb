"""Where, and how well, the model predicts held-out brain responses."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from giblet.analysis.regions import Regions
from giblet.analysis.statistics import p_values, window_null
from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder

N_PERMUTE = 2000  # null draws


@torch.no_grad()
def predict_fmri(
    model: MultimodalAutoencoder, dataset: MultimodalDataset, drop: Sequence[str] = (), batch_size: int = 64
) -> np.ndarray:
    """Predicted response to every TR of a data set: (n_trs, n_voxels) float32.

    Parameters
    ----------
    drop : sequence of 'video', 'audio', 'text'
        Modalities taken away: every TR shows the model their mean over the training TRs.
    """
    model.eval()
    device = next(model.parameters()).device
    means = {name: dataset.train_mean(name).to(device) for name in drop}
    predicted = []
    for rows in torch.arange(dataset.n_trs).split(batch_size):
        batch = dataset[rows.tolist()]
        inputs = {name: batch[name].to(device) for name in ("video", "audio", "text")}
        inputs |= {name: mean.expand_as(inputs[name]) for name, mean in means.items()}
        predicted.append(model.encoder(**inputs)[0].float().cpu())
    return torch.cat(predicted).numpy()


def voxelwise_correlation(fmri_pred: np.ndarray, fmri: np.ndarray, run: np.ndarray) -> np.ndarray:
    """Pearson r of each voxel over time, within runs, averaged over runs by their number of TRs.

    Parameters
    ----------
    fmri_pred, fmri : (n_trs, n_voxels)
    run : (n_trs,)

    Returns
    -------
    (n_voxels,) float64, NaN where prediction or measurement does not vary.
    """
    r = np.zeros(fmri.shape[1])
    for index in np.unique(run):
        x, y = (np.asarray(a[run == index], np.float64) for a in (fmri_pred, fmri))
        x, y = x - x.mean(0), y - y.mean(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            r += (run == index).mean() * (x * y).sum(0) / np.sqrt((x**2).sum(0) * (y**2).sum(0))
    return r


def explained_variance(fmri_pred: np.ndarray, fmri: np.ndarray, run: np.ndarray) -> np.ndarray:
    """R2 of each voxel over time: 1 - squared error / squared distance to the mean, within runs, averaged as r is.

    Unlike r it asks for the right size and the right mean, and falls below 0 where the mean would do better.

    Parameters
    ----------
    fmri_pred, fmri : (n_trs, n_voxels)
    run : (n_trs,)

    Returns
    -------
    (n_voxels,) float64, NaN or -inf where the measurement does not vary.
    """
    r2 = np.zeros(fmri.shape[1])
    for index in np.unique(run):
        x, y = (np.asarray(a[run == index], np.float64) for a in (fmri_pred, fmri))
        with np.errstate(divide="ignore", invalid="ignore"):
            r2 += (run == index).mean() * (1 - ((y - x) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0))
    return r2


def subject_correlations(fmri_pred: np.ndarray, dataset: MultimodalDataset, block_voxels: int = 4096) -> np.ndarray:
    """r of the prediction with each subject over the TRs in which it was measured.

    Parameters
    ----------
    fmri_pred : (n_trs, n_voxels)
        For the TRs of `dataset`, which has `average=False`.

    Returns
    -------
    (n_subjects, n_voxels) float64; its ceiling is `inter_subject_correlation`.
    """
    if dataset.average:
        raise ValueError("scores of single subjects need a dataset with average=False.")
    blocks = []
    for start in range(0, fmri_pred.shape[1], block_voxels):
        part = slice(start, start + block_voxels)
        fmri, scores = dataset.fmri(part), []
        for own in fmri:
            rows = np.isfinite(own[:, 0])
            scores.append(voxelwise_correlation(fmri_pred[rows, part], own[rows], dataset.run[rows]))
        blocks.append(np.stack(scores))
    return np.concatenate(blocks, axis=1)


def network_table(
    fmri_pred: np.ndarray,
    dataset: MultimodalDataset,
    regions: Regions,
    n_permute: int = N_PERMUTE,
    random_state: int = 0,
    split: str = "test",
) -> pd.DataFrame:
    """Held-out r of each region beside its null.

    Parameters
    ----------
    fmri_pred : (n_trs, n_voxels)
        Prediction for all TRs of `dataset`, which has `split='all'` and `average=True`: null windows are taken
        from all of each run, at least the gap between splits away from the held-out block.
    Returns
    -------
    DataFrame
        One row a region: `n_voxels`, `r` (mean over voxels), `null_mean`, `null_sd` (of that mean over the draws),
        `z` = (r - null_mean) / null_sd and `p`.
    """
    held_out = dataset.split_labels[dataset.tr_index] == split
    scores = (n_permute, random_state, regions.mean)
    r, null = window_null(fmri_pred, dataset.fmri(), dataset.run, held_out, dataset.gap, *scores)
    table = pd.DataFrame(
        {
            "n_voxels": [int(regions.voxels(name).sum()) for name in regions.names],
            "r": r,
            "null_mean": null.mean(0),
            "null_sd": null.std(0),
            "z": (r - null.mean(0)) / null.std(0),
            "p": p_values(r, null),
        },
        index=pd.Index(regions.names, name="network"),
    )
    return _labelled(table, dataset)


def knock_out_table(model: MultimodalAutoencoder, dataset: MultimodalDataset, regions: Regions) -> pd.DataFrame:
    """What each region listens to: its r over the data set's TRs with one modality after the other taken away.

    Returns
    -------
    DataFrame
        One row a region; columns `nothing`, `video`, `audio` and `text` name what was taken away, see `predict_fmri`.
    """
    fmri, columns = dataset.fmri(), {}
    for name in ("nothing", "video", "audio", "text"):
        fmri_pred = predict_fmri(model, dataset, drop=() if name == "nothing" else (name,))
        columns[name] = regions.mean(voxelwise_correlation(fmri_pred, fmri, dataset.run))
    table = pd.DataFrame(columns, index=pd.Index(regions.names, name="network"))
    return _labelled(table, dataset)


def _labelled(table: pd.DataFrame, dataset: MultimodalDataset) -> pd.DataFrame:
    if dataset.simulated:
        table.columns.name = "SIMULATED data"
    return table
