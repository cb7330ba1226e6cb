"""What in prepared data looks like a wrong setting: another lag, BOLD that drifts."""

import numpy as np

from giblet.alignment.lag import lag_curve
from giblet.data.features import STIMULI, Features, release

N_SAMPLED = 2048  # voxels, and columns of a stimulus
N_COMPONENTS = 4  # of each stimulus
BEST = 0.05  # of the voxels, those that follow the film most
EARLIEST, LATEST = -3.0, 15.0  # seconds after the film at which BOLD is read
WITHOUT = (-3.0, 0.5)  # seconds at which nothing in BOLD can follow the film
OFF_SECONDS = 2.5  # by which the peak may be off `lag_trs`
CLEARLY = 1.25  # times higher than at `lag_trs`
DRIFT = 0.6  # SDs between training and test TRs of a run; without drift about .2


def doubts(features: Features, tr: float, lag_trs: int) -> list[str]:
    """Sentences on the lag at which responses follow the film, and on drift."""
    sampled = _mean_response(features)
    return [*_said_of_lag(features, sampled, tr, lag_trs), *_said_of_drift(features, sampled)]


def _mean_response(features: Features) -> np.ndarray:
    """Mean over the subjects measured, of evenly spread voxels: (n_trs, n_sampled)."""
    columns = slice(None, None, -(-features.fmri.shape[-1] // N_SAMPLED))
    total = np.zeros(features.fmri[0, :, columns].shape)
    for bold, valid in zip(features.fmri, features.valid, strict=True):
        total += np.where(valid[:, None], bold[:, columns], 0)
        release(features.fmri)
    return total / np.maximum(features.valid.sum(0), 1)[:, None]


def _said_of_lag(features: Features, fmri: np.ndarray, tr: float, lag_trs: int) -> list[str]:
    """Where the explained variance peaks, over the training TRs."""
    train = features.split == "train"
    film = _components(features, train)
    lags = np.arange(np.ceil(EARLIEST / tr), np.floor(LATEST / tr) + 1).astype(int)
    longest = max(abs(lags - lag_trs))
    if film.shape[1] == 0 or np.bincount(features.run[train]).max() < 4 * film.shape[1] + longest:
        return []
    curves = lag_curve(film, fmri[train], features.run[train], lags - lag_trs)
    n_best = max(1, int(BEST * fmri.shape[1]))
    height = np.sort(np.nan_to_num(curves), axis=1)[:, -n_best:].mean(1)
    before = (lags * tr >= WITHOUT[0]) & (lags * tr <= WITHOUT[1])
    floor = height[before].mean()
    peak = int(height.argmax())
    told = dict(zip(lags.tolist(), height - floor, strict=True))
    at_lag = told.get(lag_trs, 0.0)
    found = int(lags[peak])
    if told[found] < 0.5 * floor and told[found] < 0.05:
        return ["at no lag do responses follow the film clearly: make sure of lag_trs and cleaning"]
    where = f"responses follow the film most closely {found} TRs ({found * tr:g} s) after it"
    if abs(found - lag_trs) * tr > OFF_SECONDS and told[found] > CLEARLY * at_lag:
        return [f"{where}, but lag_trs is {lag_trs}: make sure of it"]
    return [f"{where}, and lag_trs is {lag_trs}"]


def _components(features: Features, train: np.ndarray) -> np.ndarray:
    """A few principal components of each stimulus over the training TRs."""
    found = [np.zeros((train.sum(), 0))]
    for name in STIMULI:
        stored = getattr(features, name)
        if stored.shape[-1] == 0 or stored.ndim > 2:
            continue
        columns = slice(None, None, -(-stored.shape[1] // N_SAMPLED))
        values = np.asarray(stored[train, columns], np.float64)
        release(stored)
        left, size, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
        found.append(left[:, size > 1e-6 * size[0]][:, :N_COMPONENTS])
    return np.concatenate(found, axis=1)


def _said_of_drift(features: Features, fmri: np.ndarray) -> list[str]:
    """How far test TRs lie from the training TRs of their run."""
    off = []
    for run in np.unique(features.run):
        train, test = (
            (features.run == run) & (features.split == part) for part in ("train", "test")
        )
        if train.any() and test.any():
            off.append(np.median(np.abs(fmri[test].mean(0) - fmri[train].mean(0))))
    if not off or max(off) < DRIFT:
        return []
    return [
        f"BOLD drifts: in the test TRs of a run the mean of a voxel lies {max(off):.1f} SDs from "
        "that of its training TRs, so take confounds and drift out, see [cleaning] in "
        "data/README.md"
    ]
