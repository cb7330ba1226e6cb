"""Where, and how well, the model predicts held-out brain responses."""

from collections.abc import Sequence

import numpy as np
import torch

from giblet.analysis.statistics import varying_voxels
from giblet.data import MultimodalDataset
from giblet.data.provenance import check_held_out, check_same_data
from giblet.models import MultimodalAutoencoder


@torch.no_grad()
def predict_fmri(
    model: MultimodalAutoencoder, dataset: MultimodalDataset, drop: Sequence[str] = (), batch_size: int = 64
) -> np.ndarray:
    """Predicted response to every TR of a data set: (n_trs, n_voxels) float32.

    Parameters
    ----------
    drop : sequence of 'video', 'audio', 'text'
        Modalities taken away: every TR shows the model their mean over the training TRs.

    Raises
    ------
    ValueError
        If the model was trained on other data, or on other TRs of them, see `check_same_data`.
    """
    check_same_data(model.trained_on, dataset)
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


def knock_out_maps(model: MultimodalAutoencoder, dataset: MultimodalDataset) -> dict[str, np.ndarray]:
    """r of every voxel with 'nothing', and with each modality that is present, taken from the model's input.

    Parameters
    ----------
    dataset : MultimodalDataset with `average=True`
        Held-out TRs.

    Returns
    -------
    {name: (n_voxels,)}
    """
    check_held_out(dataset)
    taken = {"nothing": ()} | {name: (name,) for name in dataset.present}
    predictions = ((name, predict_fmri(model, dataset, drop)) for name, drop in taken.items())
    return {name: voxelwise_correlation(x, dataset.fmri(), dataset.run) for name, x in predictions}


def voxelwise_correlation(fmri_pred: np.ndarray, fmri: np.ndarray, run: np.ndarray) -> np.ndarray:
    """Pearson r of each voxel over time, within runs, averaged over runs by their number of TRs.

    Parameters
    ----------
    fmri_pred, fmri : (n_trs, n_voxels)
    run : (n_trs,)

    Returns
    -------
    (n_voxels,) float64, NaN where prediction or measurement does not vary, or by rounding only.
    """
    r = np.zeros(fmri.shape[1])
    for index in np.unique(run):
        series = [np.asarray(values[run == index]) for values in (fmri_pred, fmri)]
        r[~np.logical_and(*map(varying_voxels, series))] = np.nan
        x, y = (values.astype(np.float64) for values in series)
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
        For the TRs of `dataset`, which holds none of training and has `average=False`.

    Returns
    -------
    (n_subjects, n_voxels) float64; its ceiling is `inter_subject_correlation`.
    """
    if dataset.average:
        raise ValueError("scores of single subjects need a dataset with average=False.")
    check_held_out(dataset)
    blocks = []
    for start in range(0, fmri_pred.shape[1], block_voxels):
        part = slice(start, start + block_voxels)
        fmri, scores = dataset.fmri(part), []
        for own in fmri:
            rows = np.isfinite(own[:, 0])
            scores.append(voxelwise_correlation(fmri_pred[rows, part], own[rows], dataset.run[rows]))
        blocks.append(np.stack(scores))
    return np.concatenate(blocks, axis=1)
